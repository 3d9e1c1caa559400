"""The auxiliary loss: dead latents explain what the others leave."""

from __future__ import annotations

import torch

from groupcc import ops

__all__ = ["aux_loss", "share_left"]


def aux_loss(
    residual_NGD: torch.Tensor,
    power: torch.Tensor,
    x_NM: torch.Tensor,
    W_enc_ML: torch.Tensor,
    b_enc_L: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    dead_L: torch.Tensor,
    aux_k: int,
) -> torch.Tensor:
    """‖e − ê‖² / ‖e‖² where ê decodes the aux_k largest dead latents and e, minus the residual, is held fixed. Scalar.

    `power` is ‖e‖². Gao et al. 2024 (arXiv:2406.04093), appendix A.2. 0 where nothing is dead or the residual is 0.
    """
    dead = dead_L.nonzero().flatten()
    k = min(aux_k, dead.numel())
    if k == 0:
        return power.new_zeros(())
    acts, chosen = ops.encode_topk(x_NM, W_enc_ML.t()[dead].t(), b_enc_L[dead], k)
    left_G, _ = ops.decode_loss(acts, dead[chosen], W_dec_LGD, None, -residual_NGD.detach())
    return share_left(left_G.sum(), power)


def share_left(left: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """left / power, the latter held fixed; 0 where it is 0. Scalars."""
    power = power.detach()
    return torch.where(power == 0, 0, left / power.clamp_min(torch.finfo(power.dtype).tiny))
