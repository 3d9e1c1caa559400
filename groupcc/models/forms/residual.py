"""Partial tying: atoms R_h d_l + Δ[l, h], the residual Δ penalised; at penalty 0 untied, at infinity tied.

Training runs are the same at both ends, but for what "dead" means to the auxiliary loss: a base latent is, once no pose
of it fires, as in a tied crosscoder; in an untied one each atom is counted for itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from groupcc.errors import is_real
from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.base import Atoms, Form, penalty_error, read_of
from groupcc.models.forms.encodings import Encoding, FormedEncoding
from groupcc.models.forms.tied import Tied, translates
from groupcc.models.latents import SparseLatents

__all__ = ["Residual", "base_share", "shared"]

RESIDUAL_PENALTY = 0.3
"""Default residual_penalty over √(|G|·d_in)."""

PREFIX = "residual_"


def shared(W_LHGD: Tensor, group: Group) -> Tensor:
    """Returns the mean over poses of R_h⁻¹ W[l, h], [L, G, D]: the base whose translates come nearest to W."""
    table = translation_table(group, W_LHGD.device)
    mean_LGD = torch.zeros_like(W_LHGD[:, 0])
    for h in range(group.order):
        mean_LGD.index_add_(1, table[h], W_LHGD[:, h])
    return mean_LGD.div_(group.order)


def base_share(penalty: float) -> float:
    """Returns s = λ / (1 + λ), the share of a step that all poses share which is the base's own.

    A step that all poses share can be written into the base or into the residuals, and Adam would scale these two
    differently. At λ = 0 every atom steps by itself, and the shared part is the mean of their steps: s = 0. At λ = ∞
    only the base steps, by the sum of the gradients: s = 1. For λ in between the two are mixed with weight s; λ = 3
    gives 0.75.
    """
    return 1.0 - 1.0 / (1.0 + penalty)


class Residual(Tied):
    """Base latents d_l with |G| poses R_h d_l + Δ[l, h]; W_enc and the biases have residuals too.

    `residual_W_dec` [L, G, G, D] (latent, pose, block), `residual_W_enc` alike with encoder "orbit", `residual_b_enc`
    [L, G] (latent, pose), `residual_b_dec` [G, D]. All start at 0; while training, base and residual are orthogonal. An
    encoder "identity" reads one block, in pose h base block h: tying leaves its poses free, and nothing is residual.
    """

    has_residuals = True
    translates_exactly = False
    without_latents = ("b_dec", "residual_b_dec")

    @classmethod
    def defaults(cls, config: CrosscoderConfig, group: Group) -> dict[str, Any]:
        filled = super().defaults(config, group)
        if config.residual_penalty is None:
            filled["residual_penalty"] = RESIDUAL_PENALTY * (group.order * config.d_in) ** 0.5
        return filled

    @classmethod
    def check(cls, config: CrosscoderConfig, group: Group) -> None:
        penalty = config.residual_penalty
        if not (is_real(penalty) and penalty is not None and penalty >= 0):
            raise penalty_error(config)

    def described(self, config: CrosscoderConfig) -> str:
        return f"{super().described(config)}, residual_penalty={config.residual_penalty:g}"

    def add_parameters(self, cc: Dictionary, W_dec_LGD: Tensor) -> None:
        super().add_parameters(cc, W_dec_LGD)
        L, G, D = W_dec_LGD.shape
        cc.residual_W_dec = nn.Parameter(torch.zeros(L, G, G, D))
        if cc.config.encoder == "orbit":
            cc.residual_W_enc = nn.Parameter(torch.zeros(L, G, G, D))
        cc.residual_b_enc = nn.Parameter(torch.zeros(L, G))
        cc.residual_b_dec = nn.Parameter(torch.zeros(G, D))

    def add_centre(self, cc: Dictionary) -> None:
        # residual_b_enc has a number for each pose.
        return

    def biases(self, cc: Dictionary) -> list[Tensor]:
        return [*super().biases(cc), cc.residual_b_enc, cc.residual_b_dec]

    def centre(self, cc: Dictionary, centre_GD: Tensor) -> Tensor:
        # From the tied crosscoder's centre 1 − `base_share` of the way to the untied one's.
        return super().centre(cc, centre_GD).lerp(centre_GD, 1 - base_share(_penalty(cc)))

    def fold_centre_(self, cc: Dictionary, centre_GD: Tensor) -> None:
        shared_1D = super().centre(cc, centre_GD)[:1]
        cc.b_dec.copy_(cc.b_dec.double() + shared_1D)
        cc.residual_b_dec.copy_(cc.residual_b_dec.double() + (centre_GD - shared_1D))
        W_enc_AGD, _ = _encoder(cc)
        if cc.config.encoder == "orbit":
            # By itself what base latents read, alike in all poses: without residuals no pose gets a bias of its own.
            same_GD = shared_1D.expand_as(centre_GD)
            cc.b_enc.copy_(cc.b_enc.double() - read_of(same_GD, cc.W_enc))
            own_A = read_of(centre_GD - same_GD, W_enc_AGD) + read_of(same_GD, cc.residual_W_enc.flatten(0, 1))
        else:
            own_A = read_of(centre_GD, W_enc_AGD)
        own_LG = own_A.view_as(cc.residual_b_enc)
        mean_L1 = own_LG.mean(1, keepdim=True)
        cc.b_enc.copy_(cc.b_enc.double() - mean_L1[:, 0])
        cc.residual_b_enc.copy_(cc.residual_b_enc.double() - (own_LG - mean_L1))

    def encoder_centre(self, cc: Dictionary) -> Tensor | None:
        return None

    def reset_(self, cc: Dictionary, latents_M: Tensor) -> None:
        super().reset_(cc, latents_M)
        for name, parameter in cc.named_parameters():
            if name.startswith(PREFIX) and name not in self.without_latents:
                parameter.index_fill_(0, latents_M, 0.0)

    def encoding(self, cc: Dictionary, acts_NGD: Tensor, *, gradients_later: bool) -> Encoding:
        dtype = acts_NGD.dtype
        W_AGD, b_A = _encoder(cc)
        x = acts_NGD[:, : W_AGD.shape[1]].flatten(1)
        pre = torch.addmm(b_A.to(dtype), x, W_AGD.flatten(1).to(dtype).t())
        return FormedEncoding(cc, acts_NGD, pre.unflatten(1, (-1, cc.group.order)))

    def upright_decoders(self, cc: Dictionary) -> Tensor:
        return cc.W_dec + cc.residual_W_dec[:, 0]

    encode_maps = Form.encode_maps
    decode = Form.decode
    decode_loss = Form.decode_loss

    def decoder(self, cc: Dictionary) -> tuple[Tensor, Tensor]:
        return _decoders(cc), self.decoder_bias(cc)

    def decoder_bias(self, cc: Dictionary) -> Tensor:
        return cc.b_dec + cc.residual_b_dec

    def rows(self, cc: Dictionary, latents: SparseLatents) -> Tensor:
        return self.atom_numbers(latents, cc.group)

    @torch.no_grad()
    def prepare_gradients_(self, cc: Dictionary) -> None:
        """If decoders have unit norm, removes each gradient's part along its atom. Then scales the base's gradients by
        √s and the residuals' by √(1 − s), s = `base_share`.

        Adam is blind to such factors, but the norm that is clipped is not. It is the tied crosscoder's at infinity, and
        the untied one's at 0.
        """
        if cc.config.decoder_norm == "unit":
            base, residual = cc.W_dec, cc.residual_W_dec
            assert base.grad is not None
            assert residual.grad is not None
            _remove_along(base.grad, base)
            for h, row in enumerate(translation_table(cc.group, base.device)):
                _remove_along(residual.grad[:, h], base[:, row] + residual[:, h])
        own = base_share(_penalty(cc))
        parameters = dict(cc.named_parameters())
        for name, residual in parameters.items():
            if name.startswith(PREFIX):
                for parameter, factor in ((residual, 1 - own), (parameters[name.removeprefix(PREFIX)], own)):
                    if parameter.grad is not None:
                        parameter.grad.mul_(factor**0.5)

    @contextmanager
    def training_step(self, cc: Dictionary, lr: float) -> Iterator[list[Tensor]]:
        with super().training_step(cc, lr) as gradients, _penalised_step(cc, lr):
            yield gradients

    @torch.no_grad()
    def normalise_(self, cc: Dictionary) -> None:
        if cc.config.residual_penalty == math.inf:
            super().normalise_(cc)
        elif cc.config.decoder_norm == "unit":
            # ‖atom‖ = 1 one by one, taken apart again into base and residual.
            base, residual = cc.W_dec, cc.residual_W_dec
            for h, row in enumerate(translation_table(cc.group, base.device)):
                residual[:, h] += base[:, row]
            norm = residual.flatten(2).norm(dim=2).clamp_min(1e-12)
            residual.div_(norm[:, :, None, None])
            base.copy_(_take_shared(residual, cc.group))

    def atoms(self, cc: Dictionary) -> Atoms:
        return Atoms(*_encoder(cc), *self.decoder(cc))

    def upright(self, cc: Dictionary) -> tuple[Tensor, Tensor]:
        W_LGD = cc.W_dec.detach().float() + cc.residual_W_dec.detach().float()[:, :, 0]
        bias = cc.b_dec.detach().float()[0] + cc.residual_b_dec.detach().float()[0]
        return W_LGD.flatten(0, 1), bias

    def decoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> Tensor:
        return super().decoder_rows(cc, latents_P, poses_P) + cc.residual_W_dec[latents_P, poses_P]

    def encoder_rows(self, cc: Dictionary, latents_P: Tensor, poses_P: Tensor | None) -> tuple[Tensor, Tensor]:
        W_PGD, b_P = super().encoder_rows(cc, latents_P, poses_P)
        if poses_P is None:
            return W_PGD, b_P
        b_P = b_P + cc.residual_b_enc[latents_P, poses_P]
        return (W_PGD if cc.config.encoder == "identity" else W_PGD + cc.residual_W_enc[latents_P, poses_P]), b_P

    @torch.no_grad()
    def residual_share(self, cc: Dictionary) -> Tensor:
        residual = cc.residual_W_dec.detach().clone()
        whole = _decoders(cc).square().view(len(residual), -1).sum(1)
        _take_shared(residual, cc.group)
        left = residual.square().flatten(1).sum(1)
        return (left / whole.clamp_min(torch.finfo(whole.dtype).tiny)).clamp_max(1.0)


def _decoders(cc: Dictionary) -> Tensor:
    """Returns R_h d_l + Δ[l, h], [L·G, G, D]."""
    return translates(cc.W_dec, cc.group).add_(cc.residual_W_dec.flatten(0, 1))


def _encoder(cc: Dictionary) -> tuple[Tensor, Tensor]:
    """Returns W_enc [L·G, G or 1, D] and b_enc [L·G] of the atoms, laid out as an untied crosscoder's."""
    b_LG = cc.b_enc[:, None].expand(-1, cc.group.order) + cc.residual_b_enc
    if cc.config.encoder == "orbit":
        W_AGD = translates(cc.W_enc, cc.group).add_(cc.residual_W_enc.flatten(0, 1))
    else:
        W_AGD = cc.W_enc.flatten(0, 1)[:, None]  # block 0 of R_h W is block h of W
    return W_AGD, b_LG.flatten()


@contextmanager
def _penalised_step(cc: Dictionary, lr: float) -> Iterator[None]:
    """Around the optimizer's step: the penalty's own step follows, decoupled from the gradient as AdamW's weight decay.

    With s = `base_share`, the base keeps s of its step and takes 1 − s of what the residual's steps share, so that a
    motion of all poses counts once. The rest of the residual is divided by 1 + lr·λ, which is the proximal step of
    λ/2·‖Δ‖². Residuals are then orthogonal to the tied dictionaries. At infinity they are exactly 0.

    Example: λ = 1, so s = 0.5, for b_enc of one latent with two poses, at 0 before. The optimizer moves the base by 2
    and the residuals by 4 and 0. The base keeps 1 of its step and takes half of the residuals' mean 2: it is then 2.
    The residuals are left with 2 and −2, over 1 + lr.
    """
    pairs = _pairs(cc)
    before = [base.clone() for base, _ in pairs]
    yield
    penalty = _penalty(cc)
    own = base_share(penalty)
    for (base, residual), old in zip(pairs, before, strict=True):
        base.copy_(old.lerp(base, own))
        base.add_(_take_shared(residual, cc.group), alpha=1 - own)
        residual.div_(1 + lr * penalty)


def _pairs(cc: Dictionary) -> list[tuple[Tensor, Tensor]]:
    """Every base that has a residual, and that: views, latent before pose and block, channel before block for b_dec."""
    pairs = [
        (cc.W_dec, cc.residual_W_dec),
        (cc.b_enc[:, None], cc.residual_b_enc),
        (cc.b_dec.t(), cc.residual_b_dec.t()),
    ]
    if cc.config.encoder == "orbit":
        pairs.append((cc.W_enc, cc.residual_W_enc))
    return [(base.detach(), residual.detach()) for base, residual in pairs]


def _take_shared(residual: Tensor, group: Group) -> Tensor:
    """Takes from `residual`, in place, what its poses share, and returns that in the shape of its base in `_pairs`."""
    if residual.dim() == 2:
        mean = residual.mean(1, keepdim=True)
        residual -= mean
        return mean
    mean = shared(residual, group)
    for h, row in enumerate(translation_table(group, residual.device)):
        residual[:, h] -= mean[:, row]
    return mean


def _penalty(cc: Dictionary) -> float:
    penalty = cc.config.residual_penalty
    assert penalty is not None
    return penalty


def _remove_along(gradient_LGD: Tensor, W_LGD: Tensor) -> None:
    """Takes from each gradient, in place, its part along that latent."""
    power = W_LGD.square().sum((1, 2), keepdim=True).clamp_min(torch.finfo(W_LGD.dtype).tiny)
    along = (gradient_LGD * W_LGD).sum((1, 2), keepdim=True) / power
    gradient_LGD.addcmul_(along, W_LGD, value=-1)
