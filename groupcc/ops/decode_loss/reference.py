"""decode_loss in plain PyTorch: acts [N, K], indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops.orbit_gather.reference import orbit_gather_reference
from groupcc.ops.sparse_decode.reference import sparse_decode_reference

__all__ = ["decode_loss_reference"]


def decode_loss_reference(
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    b_dec_GD: torch.Tensor | None,
    target: torch.Tensor,
    points_GP2: torch.Tensor | None,
    interpolation: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.decode_loss`; `target` is [N, G, D], or with `points_GP2` the maps [B, S, H, W, D]."""
    if points_GP2 is not None:
        target = orbit_gather_reference(target, points_GP2, interpolation)
    residual_NGD = sparse_decode_reference(acts_NK, indices_NK, W_dec_LGD, b_dec_GD) - target
    wide = torch.promote_types(residual_NGD.dtype, torch.float32)
    return residual_NGD.to(wide).square().sum((0, 2)), residual_NGD
