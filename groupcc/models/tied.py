"""The pose-tied dictionary: atoms R_h d_l of base latents d_l, read and written without being formed."""

from __future__ import annotations

from collections.abc import Callable

import torch

from groupcc import ops
from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents
from groupcc.models.sparsity import share_left
from groupcc.ops.group_blocks import single_blocks

__all__ = [
    "aux_loss",
    "decode",
    "decode_loss",
    "encode_at",
    "gradient_is_sparse",
    "keeps_no_poses",
    "pre_acts",
    "strongest",
    "translates",
]


def pre_acts(
    x_NGD: torch.Tensor, W_enc_GDL: torch.Tensor, b_enc_L: torch.Tensor, group: Group, encoder: str
) -> torch.Tensor:
    """z[n, l, h] = Σ_g ⟨W_l[gh], x[n, g]⟩ + b_l ("orbit") or ⟨W_l[h], x[n, 0]⟩ + b_l ("identity"): [N, L, G]."""
    W_LGD = W_enc_GDL.permute(2, 0, 1)
    if encoder == "orbit":
        return ops.group_correlate(x_NGD, W_LGD, group) + b_enc_L[:, None]
    L, G, _ = W_LGD.shape
    return (x_NGD[:, 0] @ W_LGD.flatten(0, 1).t()).view(-1, L, G) + b_enc_L[:, None]


def strongest(
    x_NGD: torch.Tensor,
    W_enc_GDL: torch.Tensor,
    b_enc_L: torch.Tensor,
    group: Group,
    config: CrosscoderConfig,
    z_NLG: torch.Tensor | None = None,
    latents: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of these base latents (None: all) `pre_acts` with encoder "orbit" in the strongest pose, and that pose:
    [N, latents]. From all pre-activations z where these are formed, whatever the encoder; without gradients where
    these are left to `encode_at`."""
    chosen = slice(None) if latents is None else latents
    if z_NLG is not None:
        values, poses = z_NLG[:, chosen].max(2)
        return values, poses
    sparse = gradient_is_sparse(x_NGD, W_enc_GDL, config, group)
    with torch.set_grad_enabled(torch.is_grad_enabled() and not sparse):
        return ops.group_correlate_max(x_NGD, W_enc_GDL[:, :, chosen].permute(2, 0, 1), b_enc_L[chosen], group)


def keeps_no_poses(
    x_NGD: torch.Tensor, W_enc_GDL: torch.Tensor, b_enc_L: torch.Tensor, group: Group, config: CrosscoderConfig
) -> bool:
    """Whether a kernel here selects poses as the configuration says without pre-activations [N, L, G] in memory."""
    if config.encoder != "orbit" or config.pose != "max":
        return False
    return ops.keeps_no_poses(x_NGD, W_enc_GDL.permute(2, 0, 1), b_enc_L, group)


def gradient_is_sparse(x_NGD: torch.Tensor, W_enc_GDL: torch.Tensor, config: CrosscoderConfig, group: Group) -> bool:
    """Whether gradients are to go to the chosen poses alone (`encode_at`), rather than through all pre-activations."""
    if config.encoder != "orbit" or config.sparsity == "l1" or not torch.is_grad_enabled():
        return False
    return ops.sparse_gradient_pays(x_NGD, W_enc_GDL.permute(2, 0, 1), config.k, group)


def encode_at(
    x_NGD: torch.Tensor, W_enc_GDL: torch.Tensor, b_enc_L: torch.Tensor, latents: SparseLatents, group: Group
) -> SparseLatents:
    """Latents chosen without gradient ("orbit" encoder), with the gradients of their acts."""
    assert latents.poses is not None
    W_LGD = W_enc_GDL.permute(2, 0, 1)
    known = latents.acts.detach()
    acts = ops.group_encode_at(x_NGD, W_LGD, b_enc_L, latents.indices, latents.poses, group, known=known)
    return latents._replace(acts=acts)


def translates(W_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """Every R_h of every latent, [L·G, G, D]: that of latent l in pose h is the (l·G + h)-th."""
    return W_LGD[:, translation_table(group, W_LGD.device)].flatten(0, 1)


def decode(latents: SparseLatents, W_dec_LGD: torch.Tensor, b_dec_1D: torch.Tensor, group: Group) -> torch.Tensor:
    """â[n, g] = Σ_k act · W_dec[index, g·pose] + b_dec: [N, G, D]."""
    assert latents.poses is not None
    N, (_, G, D) = len(latents.acts), W_dec_LGD.shape
    blocks = single_blocks(latents.acts, latents.indices, latents.poses, W_dec_LGD, group)
    return ops.sparse_decode(*blocks, b_dec_1D).view(N, G, D)


def decode_loss(
    latents: SparseLatents,
    W_dec_LGD: torch.Tensor,
    b_dec_1D: torch.Tensor | None,
    target_NGD: torch.Tensor,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Σ (â − target)², a scalar, and the residual â − target [N, G, D]."""
    assert latents.poses is not None
    return ops.group_decode_loss(latents.acts, latents.indices, latents.poses, W_dec_LGD, b_dec_1D, target_NGD, group)


def aux_loss(
    residual_NGD: torch.Tensor,
    power: torch.Tensor,
    strongest: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    dead_L: torch.Tensor,
    aux_k: int,
    error: Callable[[SparseLatents, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """`sparsity.aux_loss` of the dead base latents, each in its strongest pose.

    `strongest(latents)`: their largest pre-activations and the poses that have these, [N, latents].
    `error(latents, target)`: Σ (â − target)², â the latents' reconstruction without bias.
    """
    dead = dead_L.nonzero().flatten()
    k = min(aux_k, dead.numel())
    if k == 0:
        return power.new_zeros(())
    values, pose = strongest(dead)
    acts, chosen = ops.topk(values, k)
    latents = SparseLatents(acts, dead[chosen], pose.gather(1, chosen))
    return share_left(error(latents, -residual_NGD.detach()), power)
