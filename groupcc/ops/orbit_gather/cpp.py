"""Launches csrc/orbit_gather.cpp: maps [B, S, H, W, D], points [G, P, 2] → acts [B·P, G, D], and its transpose."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import empty, why_not
from groupcc.ops._cpp.orbit_gather import as_points, gather, scatter, with_channels_inside
from groupcc.ops.orbit_gather import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return why_not((args.maps_BSHWD,))


def forward(args: Args) -> torch.Tensor:
    maps, points = with_channels_inside(args.maps_BSHWD), as_points(args.points_GP2)
    G, P, _ = points.shape
    acts = empty((maps.shape[0] * P, G, maps.shape[4]), maps.dtype)
    gather(maps, points, args.interpolation, acts)
    return acts


def backward(args: Backward) -> torch.Tensor:
    d_maps = empty(tuple(args.shape_BSHWD), args.grad_NGD.dtype)
    scatter(args.grad_NGD.contiguous(), as_points(args.points_GP2), args.interpolation, d_maps)
    return d_maps
