"""Launches csrc/pose_maxima.cpp: z [N, L, G], near [L, G] → poses taken and their z, [N, count]."""

from __future__ import annotations

from functools import lru_cache

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.launch import _C, threads
from groupcc.ops._cpp.launch import why_not as unsupported
from groupcc.ops.pose_maxima import Args

__all__ = ["forward", "unsupported"]


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    z_NLG, near_LG, group, count = args
    # 16-bit values widened: exact, in the same order, and a copy that keeps their strides.
    z = z_NLG.to(torch.promote_types(z_NLG.dtype, torch.float32))
    near = near_LG.contiguous()
    taken = torch.empty(len(z), count, dtype=torch.int64, device="cpu")
    values = torch.empty(len(z), count, dtype=z.dtype, device="cpu")
    _C.pose_maxima(z, near, _between(group), taken, values, threads())
    return taken, values.to(z_NLG.dtype)


@lru_cache(maxsize=32)
def _between(group: Group) -> torch.Tensor:
    """int64 [G, G]: h⁻¹h' at (h, h')."""
    return torch.from_numpy(group.cayley[group.inverse]).to(torch.int64).contiguous()
