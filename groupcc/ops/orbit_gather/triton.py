"""orbit_gather on GPUs: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and its transpose."""

from __future__ import annotations

import torch

from groupcc.ops._triton.launch import why_not
from groupcc.ops._triton.orbit_gather import gather, scatter
from groupcc.ops.orbit_gather import Args, Backward, too_large

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return why_not((args.maps_BSHWD,)) or too_large(args.maps_BSHWD, args.points_GP2)


def forward(args: Args) -> torch.Tensor:
    return gather(*args)


def backward(args: Backward) -> torch.Tensor:
    return scatter(*args)
