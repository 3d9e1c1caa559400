"""Which pixels a sampling point reads, and their weights."""

from __future__ import annotations

import torch

from groupcc.errors import ArgumentError, argument_error

__all__ = ["INTERPOLATIONS", "outside_error", "sampling_taps"]

INTERPOLATIONS = {"bilinear": 0.0, "bspline": 1.0}
"""Each interpolation with how far a point must lie inside the outermost pixel centres, in map pixels."""

ON_PIXEL = 1e-6
"""Coordinates this close to a pixel count as on it, and points this far outside count as inside."""


def sampling_taps(points_GP2: torch.Tensor, H: int, W: int, interpolation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels that each point reads and their weights: index int64 [G, P, T] into H·W, weight float64 [G, P, T].

    T = 4 for bilinear, 9 for the quadratic B-spline. A coordinate within 1e-6 of a pixel counts as on it, so that
    rounding in the group's matrices never turns a copy into an interpolation. A tap of weight 0 is not part of the
    sum: its pixel may be anything, infinity too. Computed on the device of `points`, in float64. ArgumentError for
    points outside the map, except under torch.compile, which cannot look at them.
    """
    points_GP2 = points_GP2.double()
    if not torch.compiler.is_compiling():
        _check(points_GP2, H, W, interpolation)
    rounded = points_GP2.round()
    points = torch.where((points_GP2 - rounded).abs() < ON_PIXEL, rounded, points_GP2)
    if interpolation == "bilinear":
        base = points.floor()
        fraction = points - base
        weights_axis = torch.stack([1 - fraction, fraction], dim=-1)  # [G, P, 2 (axis), taps]
    else:
        base = (points + 0.5).floor() - 1
        offset = points - (base + 1)  # from the nearest pixel, in [-0.5, 0.5)
        weights_axis = torch.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2], dim=-1)
    steps = torch.arange(weights_axis.shape[-1], device=points.device)
    taps = base.long()[..., None] + steps  # [G, P, 2, taps]
    x = taps[:, :, 0].clamp(0, W - 1)
    y = taps[:, :, 1].clamp(0, H - 1)
    index = y[:, :, :, None] * W + x[:, :, None, :]
    weight = weights_axis[:, :, 1, :, None] * weights_axis[:, :, 0, None, :]
    return index.flatten(2), weight.flatten(2)


def outside_error(points_GP2: torch.Tensor, first: int, H: int, W: int, interpolation: str) -> ArgumentError:
    """The error for point number `first`, g·P + p, which lies outside the map."""
    margin = INTERPOLATIONS[interpolation]
    g, p = divmod(first, points_GP2.shape[1])
    return argument_error(
        "points",
        expected=f"x from {margin:g} to {W - 1 - margin:g} and y from {margin:g} to {H - 1 - margin:g}",
        got=f"({points_GP2[g, p, 0]:g}, {points_GP2[g, p, 1]:g}) for element {g}, position {p}",
        remedy="Use positions whose whole orbit stays inside the map.",
    )


def _check(points_GP2: torch.Tensor, H: int, W: int, interpolation: str) -> None:
    margin = INTERPOLATIONS[interpolation]
    limit = points_GP2.new_tensor([W - 1 - margin, H - 1 - margin])
    inside = ((points_GP2 >= margin - ON_PIXEL) & (points_GP2 <= limit + ON_PIXEL)).all(-1)  # NaN is not
    if not inside.all():
        raise outside_error(points_GP2, int((~inside).flatten().nonzero()[0]), H, W, interpolation)
