"""decode_loss in plain PyTorch: acts [N, K], indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops.orbit_gather.reference import Args as GatherArgs
from groupcc.ops.orbit_gather.reference import orbit_gather_reference
from groupcc.ops.sparse_decode.reference import Args as DecodeArgs
from groupcc.ops.sparse_decode.reference import sparse_decode_reference

__all__ = ["Args", "decode_loss_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.decode_loss`. `target` is [N, G, D], or if there are points the maps [B, S, H, W, D]."""

    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    W_dec_LGD: torch.Tensor
    b_dec_GD: torch.Tensor | None
    target: torch.Tensor
    points_GP2: torch.Tensor | None
    interpolation: str


def decode_loss_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.decode_loss`."""
    target = args.target
    if args.points_GP2 is not None:
        target = orbit_gather_reference(GatherArgs(target, args.points_GP2, args.interpolation))
    residual_NGD = sparse_decode_reference(DecodeArgs(*args[:4])) - target
    wide = torch.promote_types(residual_NGD.dtype, torch.float32)
    return residual_NGD.to(wide).square().sum((0, 2)), residual_NGD
