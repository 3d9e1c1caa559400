"""Launches csrc/orbit_gather.cpp for the ops that gather: maps [B, S, H, W, D], points [G, P, 2] ↔ acts [B·P, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, threads
from groupcc.ops.orbit_gather import outside_error


def as_points(points_GP2: torch.Tensor) -> torch.Tensor:
    """The points as the kernels read them: float64 on the CPU, contiguous."""
    return points_GP2.detach().to("cpu", torch.float64).contiguous()


def with_channels_inside(maps_BSHWD: torch.Tensor) -> torch.Tensor:
    """Returns the maps with stride 1 along their channels, as the kernels read them; a copy if they have another."""
    if maps_BSHWD.stride(4) == 1 or maps_BSHWD.shape[4] == 1:
        return maps_BSHWD
    return maps_BSHWD.clone(memory_format=torch.contiguous_format)  # `contiguous` keeps the strides of no elements


def gather(
    maps_BSHWD: torch.Tensor,
    points_GP2: torch.Tensor,
    interpolation: str,
    acts_NGD: torch.Tensor,
    elements: slice = slice(None),
) -> None:
    """Writes the gather of `maps_BSHWD` under `elements` of the points' into contiguous `acts_NGD`.

    ArgumentError for points outside the map.
    """
    outside = _C.orbit_gather(maps_BSHWD, points_GP2[elements], acts_NGD, interpolation == "bspline", threads())
    if outside >= 0:
        (G, P, _), (_, _, H, W, _) = points_GP2.shape, maps_BSHWD.shape
        raise outside_error(points_GP2, elements.indices(G)[0] * P + outside, H, W, interpolation)


def scatter(acts_NGD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str, maps_BSHWD: torch.Tensor) -> None:
    """Writes the transposed gather of contiguous `acts_NGD` over all of `maps_BSHWD`."""
    _C.orbit_gather_backward(maps_BSHWD, points_GP2, acts_NGD, interpolation == "bspline", threads())
