"""orbit_gather: feature maps of an orbit → aligned activations."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.ops.backend import Op
from groupcc.ops.orbit_gather.reference import orbit_gather_reference, sampling_taps

__all__ = ["INTERPOLATIONS", "check_gather", "orbit_gather", "sampling_taps"]

INTERPOLATIONS = {"bilinear": 0.0, "bspline": 1.0}
"""Each interpolation with how far a point must lie inside the outermost pixel centres, in map pixels."""

_op = Op("orbit_gather", orbit_gather_reference, orbit_gather_reference, ())


def orbit_gather(maps: torch.Tensor, points: torch.Tensor, interpolation: str = "bilinear") -> torch.Tensor:
    """Aligned activations of an orbit: a_g(p) = A_g(g·p), sampled from maps A_g at the given points.

    - `maps` [B, S, H, W, D], floating point: S = |G| maps an image (input orbit) or S = 1 (activation-map orbit:
      every element samples the same map).
    - `points` [G, P, 2], floating point: where element g finds position p, as (x, y) in map pixels.
    - Returns [B·P, G, D] in the dtype of `maps`, example b·P + p; sums in at least fp32.
    - `interpolation`: `"bilinear"` reads 4 pixels; points on a pixel are copies. It low-passes by the fractional
      part, so that lattice-exact elements keep detail that others lose. `"bspline"` is the quadratic B-spline as a
      smoothing sampler: 9 pixels, weights ((½−t)²/2, ¾−t², (½+t)²/2) along each axis, whose variance is ¼ pixel²
      at every t: the filter's gain is the same for every element up to fourth order in the frequency, its phase up to
      third (Unser 1999, "Splines: a perfect fit for signal and image processing").

    Gradients flow to `maps` (the transposed gather). Errors: ArgumentError for shapes, dtypes, or points outside
    the map. Deterministic on the CPU.
    """
    check_gather(maps, points, interpolation)
    return _op(maps, points, interpolation)


def check_gather(maps: torch.Tensor, points: torch.Tensor, interpolation: str) -> None:
    """The arguments are what `orbit_gather` takes, or ArgumentError."""
    if interpolation not in INTERPOLATIONS:
        raise argument_error(
            "interpolation",
            expected=" or ".join(INTERPOLATIONS),
            got=interpolation,
            remedy='Use "bspline" to resample every block alike.',
        )
    if maps.dim() != 5 or not maps.is_floating_point():
        raise argument_error(
            "maps",
            expected="a floating-point tensor [B, S, H, W, D]",
            got=f"{maps.dtype} of shape {tuple(maps.shape)}",
            remedy="From a layer's output [G, C, H, W] use output.permute(0, 2, 3, 1)[None].",
        )
    if points.dim() != 3 or points.shape[-1] != 2 or not points.is_floating_point():
        raise argument_error(
            "points",
            expected="a floating-point tensor [G, P, 2] of (x, y)",
            got=f"{points.dtype} of shape {tuple(points.shape)}",
            remedy="One row of points for each element of the group.",
        )
    if maps.shape[1] not in (1, points.shape[0]):
        raise argument_error(
            "maps",
            expected=f"S = 1 or S = G = {points.shape[0]} maps an image",
            got=f"S = {maps.shape[1]}",
            remedy="Give one map for each element, in element order, or a single one.",
        )
    margin = INTERPOLATIONS[interpolation]
    height, width = maps.shape[2:4]
    if points.numel() == 0:
        return
    limit = points.new_tensor([width - 1 - margin, height - 1 - margin])
    outside = ((points < margin - 1e-6) | (points > limit + 1e-6) | ~points.isfinite()).any(-1)
    if outside.any():
        g, p = (int(i) for i in outside.nonzero()[0])
        raise argument_error(
            "points",
            expected=f"x from {margin:g} to {width - 1 - margin:g} and y from {margin:g} to {height - 1 - margin:g}",
            got=f"({points[g, p, 0]:g}, {points[g, p, 1]:g}) for element {g}, position {p}",
            remedy="Use positions whose whole orbit stays inside the map.",
        )
