"""Partial tying: atoms R_h d_l + Δ[l, h], the residual Δ penalised; at penalty 0 untied, at infinity tied.

Training runs are the same at both ends, but for what "dead" means to the auxiliary loss: a base latent is, once no pose
of it fires, as in a tied crosscoder; in an untied one each atom is counted for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.models.tied import translates

if TYPE_CHECKING:
    from groupcc.models.crosscoder import GroupCrosscoder

__all__ = [
    "add_parameters",
    "atoms",
    "base_share",
    "encoder",
    "initialise_biases_",
    "normalise_",
    "penalised_step",
    "prepare_gradients_",
    "share",
    "shared",
]

PREFIX = "residual_"


def add_parameters(crosscoder: GroupCrosscoder) -> None:
    """The residuals, all 0: `residual_W_dec` [L, G, G, D] (latent, pose, block), `residual_W_enc` alike with encoder
    "orbit", `residual_b_enc` [L, G] (latent, pose), `residual_b_dec` [G, D].

    An encoder "identity" reads one block, in pose h base block h: tying leaves its poses free, and nothing is residual.
    """
    G, D, L = crosscoder.group.order, crosscoder.config.d_in, crosscoder.config.n_latents
    crosscoder.residual_W_dec = nn.Parameter(torch.zeros(L, G, G, D))
    if crosscoder.config.encoder == "orbit":
        crosscoder.residual_W_enc = nn.Parameter(torch.zeros(L, G, G, D))
    crosscoder.residual_b_enc = nn.Parameter(torch.zeros(L, G))
    crosscoder.residual_b_dec = nn.Parameter(torch.zeros(G, D))


def atoms(W_LGD: torch.Tensor, residual_LHGD: torch.Tensor, group: Group) -> torch.Tensor:
    """R_h W_l + Δ[l, h], [L·G, G, D]: that of latent l in pose h is the (l·G + h)-th."""
    return translates(W_LGD, group).add_(residual_LHGD.flatten(0, 1))


def shared(W_LHGD: torch.Tensor, group: Group) -> torch.Tensor:
    """The mean over poses of R_h⁻¹ W[l, h], [L, G, D]: the base whose translates come nearest in least squares."""
    table = translation_table(group, W_LHGD.device)
    mean_LGD = torch.zeros_like(W_LHGD[:, 0])
    for h in range(group.order):
        mean_LGD.index_add_(1, table[h], W_LHGD[:, h])
    return mean_LGD.div_(group.order)


def encoder(crosscoder: GroupCrosscoder) -> tuple[torch.Tensor, torch.Tensor]:
    """W_enc [G or 1, D, L·G] and b_enc [L·G] of the atoms, laid out as an untied crosscoder's."""
    cc = crosscoder
    W_LGD, b_L1 = cc.W_enc.permute(2, 0, 1), cc.b_enc[:, None]
    W_AGD = W_LGD.flatten(0, 1)[:, None]  # "identity" reads block 0, and that of R_h W is block h of W
    if cc.config.encoder == "orbit":
        W_AGD = translates(W_LGD, cc.group)
    b_LG = b_L1.expand(-1, cc.group.order)
    if cc.config.tied == "residual":
        b_LG = b_LG + cc.residual_b_enc
        if cc.config.encoder == "orbit":
            W_AGD = W_AGD.add_(cc.residual_W_enc.flatten(0, 1))
    return W_AGD.permute(1, 2, 0), b_LG.flatten()


def base_share(penalty: float) -> float:
    """λ / (1 + λ): how much of a step that all poses share is the base's own. 0 at λ = 0, 1 at infinity.

    Such a motion lies in base and residual alike, and Adam scales the two apart. Untied, every atom takes its own step,
    and their mean is what the poses share; tied, the base takes one, from the sum of their gradients. Between, the mix.
    """
    return 1.0 - 1.0 / (1.0 + penalty)


@torch.no_grad()
def prepare_gradients_(crosscoder: GroupCrosscoder) -> None:
    """At unit norm removes what lies along base and atoms; then √s times the base's, √(1 − s) times the residual's.

    s = `base_share`. Adam is blind to such factors but not the norm that is clipped: it is the tied crosscoder's at
    infinity, the untied one's at 0.
    """
    group, config = crosscoder.group, crosscoder.config
    if config.decoder_norm == "unit":
        base, residual = crosscoder.W_dec, crosscoder.residual_W_dec
        assert base.grad is not None
        assert residual.grad is not None
        _remove_along(base.grad, base)
        for h, row in enumerate(translation_table(group, base.device)):
            _remove_along(residual.grad[:, h], base[:, row] + residual[:, h])
    own = base_share(_penalty(crosscoder))
    parameters = dict(crosscoder.named_parameters())
    for name, residual in parameters.items():
        if name.startswith(PREFIX):
            for parameter, factor in ((residual, 1 - own), (parameters[name.removeprefix(PREFIX)], own)):
                if parameter.grad is not None:
                    parameter.grad.mul_(factor**0.5)


@contextmanager
def penalised_step(crosscoder: GroupCrosscoder, lr: float) -> Iterator[None]:
    """Around the optimizer's step: the penalty's own, decoupled from the gradient (as AdamW's weight decay), follows.

    With s = `base_share`, the base keeps s of its step and takes 1 − s of what the residual's steps share, so that a
    motion of all poses counts once; the rest of the residual is divided by 1 + lr·λ, which is the proximal step of
    λ/2·‖Δ‖². Residuals are then orthogonal to the tied dictionaries. At infinity they are exactly 0.
    """
    pairs = _pairs(crosscoder)
    before = [base.clone() for base, _ in pairs]
    yield
    penalty = _penalty(crosscoder)
    own = base_share(penalty)
    for (base, residual), old in zip(pairs, before, strict=True):
        base.copy_(old.lerp(base, own))
        base.add_(_take_shared(residual, crosscoder.group), alpha=1 - own)
        residual.div_(1 + lr * penalty)


@torch.no_grad()
def normalise_(crosscoder: GroupCrosscoder) -> None:
    """‖atom‖ = 1 one by one, taken apart again into base and residual; an atom of zeros stays."""
    base, residual = crosscoder.W_dec, crosscoder.residual_W_dec
    for h, row in enumerate(translation_table(crosscoder.group, base.device)):
        residual[:, h] += base[:, row]
    norm = residual.flatten(2).norm(dim=2).clamp_min(1e-12)
    residual.div_(norm[:, :, None, None])
    base.copy_(_take_shared(residual, crosscoder.group))


@torch.no_grad()
def share(crosscoder: GroupCrosscoder) -> torch.Tensor:
    """‖Δ_l‖² / Σ_h‖W_dec[l, h]‖², Δ_l what the translates of no base latent can hold. [L], in [0, 1]."""
    residual = crosscoder.residual_W_dec.detach().clone()
    whole = atoms(crosscoder.W_dec, residual, crosscoder.group).square().view(len(residual), -1).sum(1)
    _take_shared(residual, crosscoder.group)
    left = residual.square().flatten(1).sum(1)
    return (left / whole.clamp_min(torch.finfo(whole.dtype).tiny)).clamp_max(1.0)


@torch.no_grad()
def initialise_biases_(crosscoder: GroupCrosscoder, centre_GD: torch.Tensor) -> None:
    """From the tied crosscoder's start 1 − `base_share` of the way to the untied one's, about the centre itself."""
    left = 1 - base_share(_penalty(crosscoder))
    crosscoder.residual_b_dec.copy_((centre_GD.to(crosscoder.b_dec) - crosscoder.b_dec) * left)
    W_enc, _ = encoder(crosscoder)
    read = (crosscoder.b_dec + crosscoder.residual_b_dec)[: W_enc.shape[0]]
    b_enc_LG = -torch.einsum("gd,gda->a", read, W_enc).view_as(crosscoder.residual_b_enc)
    mean_L1 = b_enc_LG.mean(1, keepdim=True)
    crosscoder.residual_b_enc.copy_((b_enc_LG - mean_L1) * left)
    crosscoder.b_enc.copy_(mean_L1[:, 0])


def _pairs(crosscoder: GroupCrosscoder) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every base that has a residual, and that: views, latent before pose and block, channel before block for b_dec."""
    cc = crosscoder
    pairs = [
        (cc.W_dec, cc.residual_W_dec),
        (cc.b_enc[:, None], cc.residual_b_enc),
        (cc.b_dec.t(), cc.residual_b_dec.t()),
    ]
    if cc.config.encoder == "orbit":
        pairs.append((cc.W_enc.permute(2, 0, 1), cc.residual_W_enc))
    return [(base.detach(), residual.detach()) for base, residual in pairs]


def _take_shared(residual: torch.Tensor, group: Group) -> torch.Tensor:
    """Takes from `residual`, in place, what its poses share, and returns that in the shape of its base in `_pairs`."""
    if residual.dim() == 2:
        mean = residual.mean(1, keepdim=True)
        residual -= mean
        return mean
    mean = shared(residual, group)
    for h, row in enumerate(translation_table(group, residual.device)):
        residual[:, h] -= mean[:, row]
    return mean


def _penalty(crosscoder: GroupCrosscoder) -> float:
    penalty = crosscoder.config.residual_penalty
    assert penalty is not None
    return penalty


def _remove_along(gradient_LGD: torch.Tensor, W_LGD: torch.Tensor) -> None:
    """Takes from each gradient, in place, its part along that latent."""
    power = W_LGD.square().sum((1, 2), keepdim=True).clamp_min(torch.finfo(W_LGD.dtype).tiny)
    along = (gradient_LGD * W_LGD).sum((1, 2), keepdim=True) / power
    gradient_LGD.addcmul_(along, W_LGD, value=-1)
