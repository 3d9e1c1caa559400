"""Launches csrc/orbit_gather.cpp: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and its transpose."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import empty, why_not
from groupcc.ops._cpp.orbit_gather import as_points, gather, scatter, with_channels_inside

__all__ = ["backward", "forward", "unsupported"]


def unsupported(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> str | None:
    return why_not(maps_BSHWD)


def forward(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> torch.Tensor:
    maps, points = with_channels_inside(maps_BSHWD), as_points(points_GP2)
    G, P, _ = points.shape
    acts = empty((maps.shape[0] * P, G, maps.shape[4]), maps.dtype)
    gather(maps, points, interpolation, acts)
    return acts


def backward(
    grad_NGD: torch.Tensor, points_GP2: torch.Tensor, shape_BSHWD: tuple[int, ...], interpolation: str
) -> torch.Tensor:
    d_maps = empty(shape_BSHWD, grad_NGD.dtype)
    scatter(grad_NGD.contiguous(), as_points(points_GP2), interpolation, d_maps)
    return d_maps
