"""orbit_gather: feature maps of an orbit → aligned activations."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.errors import argument_error, check_choice
from groupcc.ops._checks import wrong
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops.orbit_gather.reference import Args, orbit_gather_reference
from groupcc.ops.orbit_gather.table import TapTable, tap_table, too_large
from groupcc.ops.orbit_gather.taps import INTERPOLATIONS, outside_error, sampling_taps

__all__ = [
    "INTERPOLATIONS",
    "OP",
    "Args",
    "Backward",
    "TapTable",
    "check_gather",
    "orbit_gather",
    "outside_error",
    "sampling_taps",
    "tap_table",
    "too_large",
]


class Backward(NamedTuple):
    """What the gradient to maps of this shape is made from."""

    grad_NGD: torch.Tensor
    points_GP2: torch.Tensor
    shape_BSHWD: tuple[int, ...]
    interpolation: str


class _OrbitGather(Op[Args, torch.Tensor]):
    name = "orbit_gather"
    reference = staticmethod(orbit_gather_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.orbit_gather import cpp

            return cpp
        from groupcc.ops.orbit_gather import triton

        return triton

    def outputs(self, args: Args) -> torch.Tensor:
        maps, points = args.maps_BSHWD, args.points_GP2
        return maps.new_empty(maps.shape[0] * points.shape[1], points.shape[0], maps.shape[-1])

    def save(self, args: Args, _: torch.Tensor) -> Backward:
        return Backward(LATER, args.points_GP2, args.maps_BSHWD.shape, args.interpolation)

    def d_outputs(self, args: Backward) -> torch.Tensor:
        return args.grad_NGD.new_empty(args.shape_BSHWD)

    def gradients(self, record: Backward, saved: Saved, grad: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"maps_BSHWD": self.backward(record._replace(grad_NGD=grad), saved.backend)}


OP = _OrbitGather()


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

    A pixel whose weight is 0 is not read, so NaN and infinity spread only to points that have a share in them.
    Gradients flow to `maps` (the transposed gather), not to `points`. Errors: ArgumentError for shapes, dtypes, or
    points outside the map. Deterministic on the CPU.
    """
    check_gather(maps, points, interpolation)
    return OP(Args(maps, points, interpolation))


def check_gather(maps: torch.Tensor, points: torch.Tensor, interpolation: str) -> None:
    """Shapes and dtypes are what `orbit_gather` takes, or ArgumentError; where points lie, `sampling_taps` checks."""
    check_choice("interpolation", interpolation, INTERPOLATIONS, 'Use "bspline" to resample every block alike.')
    if maps.dim() != 5 or not maps.is_floating_point():
        raise wrong(
            "maps",
            maps,
            "a floating-point tensor [B, S, H, W, D]",
            "From a layer's output [G, C, H, W] use output.permute(0, 2, 3, 1)[None].",
        )
    if points.dim() != 3 or points.shape[-1] != 2 or not points.is_floating_point():
        raise wrong(
            "points",
            points,
            "a floating-point tensor [G, P, 2] of (x, y)",
            "One row of points for each element of the group.",
        )
    if maps.shape[1] not in (1, points.shape[0]):
        raise argument_error(
            "maps",
            expected=f"S = 1 or S = G = {points.shape[0]} maps an image",
            got=f"S = {maps.shape[1]}",
            remedy="Give one map for each element, in element order, or a single one.",
        )
