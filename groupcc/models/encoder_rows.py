"""The encoder of a few atoms by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from groupcc.groups.translate import translation_table

if TYPE_CHECKING:
    from groupcc.models.crosscoder import GroupCrosscoder

__all__ = ["atom_rows", "encoder_rows"]


@torch.no_grad()
def atom_rows(
    crosscoder: GroupCrosscoder, latents_P: torch.Tensor, poses_P: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """W [P, G or 1, D] and b [P] of latents, or of the atoms (latent, pose): pre = Σ_g ⟨a_g, W[·, g]⟩ + b.

    The one block of an encoder "identity" reads a_0. Of a tied crosscoder without `poses_P`: W_l and b_l, what its
    poses share, always of G blocks. Indices on the crosscoder's device.
    """
    cc, W_LGD = crosscoder, crosscoder.W_enc.permute(2, 0, 1)
    b_P = cc.b_enc[latents_P]
    if poses_P is None:
        return W_LGD[latents_P], b_P
    if cc.config.tied == "residual":
        b_P = b_P + cc.residual_b_enc[latents_P, poses_P]
    if cc.config.encoder == "identity":  # block 0 of R_h W is block h of W
        return W_LGD[latents_P, poses_P][:, None], b_P
    W_PGD = W_LGD[latents_P[:, None], translation_table(cc.group, W_LGD.device)[poses_P]]
    return (W_PGD + cc.residual_W_enc[latents_P, poses_P] if cc.config.tied == "residual" else W_PGD), b_P


def encoder_rows(crosscoder: GroupCrosscoder, latents: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """W [n, H, G or 1, D] and b [n, H] of these latents: pre[·, h] = Σ_g ⟨a_g, W[·, h, g]⟩ + b[·, h].

    H = |G| poses where the crosscoder is tied, else 1. The one block of an encoder "identity" reads a_0.
    """
    n, H = len(latents), crosscoder.group.order if crosscoder.config.tied else 1
    device = crosscoder.W_enc.device
    chosen = torch.tensor(list(latents), device=device).repeat_interleave(H)
    poses = torch.arange(H, device=device).repeat(n) if crosscoder.config.tied else None
    W, b = atom_rows(crosscoder, chosen, poses)
    return W.view(n, H, *W.shape[1:]), b.view(n, H)
