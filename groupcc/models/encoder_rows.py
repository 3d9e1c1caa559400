"""The encoder of a few latents by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from groupcc.models.tied import translates

if TYPE_CHECKING:
    from groupcc.models.crosscoder import GroupCrosscoder

__all__ = ["encoder_rows"]


@torch.no_grad()
def encoder_rows(crosscoder: GroupCrosscoder, latents: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """W [n, H, G or 1, D] and b [n, H] of these latents: pre[·, h] = Σ_g ⟨a_g, W[·, h, g]⟩ + b[·, h].

    H = |G| poses where the crosscoder is tied, else 1. The one block of an encoder "identity" reads a_0.
    """
    cc, chosen = crosscoder, list(latents)
    W_nGD, b_n1 = cc.W_enc.permute(2, 0, 1)[chosen], cc.b_enc[chosen, None]
    if not cc.config.tied:
        return W_nGD[:, None], b_n1
    n, G, D = W_nGD.shape
    b_nH = b_n1.expand(-1, G)
    if cc.config.tied == "residual":
        b_nH = b_nH + cc.residual_b_enc[chosen]
    if cc.config.encoder == "identity":  # block 0 of R_h W is block h of W
        return W_nGD[:, :, None], b_nH
    W_nHGD = translates(W_nGD, cc.group).view(n, G, G, D)
    return (W_nHGD + cc.residual_W_enc[chosen] if cc.config.tied == "residual" else W_nHGD), b_nH
