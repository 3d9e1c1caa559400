"""Which positions of the map every transform can be read at, and where each transform finds them."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from groupcc.errors import argument_error, check_choice
from groupcc.groups import Action
from groupcc.groups.images import Frame
from groupcc.ops.orbit_gather import INTERPOLATIONS
from groupcc.views.lattice import Lattice

__all__ = ["Geometry", "Margin", "PositionRule", "parse_positions", "plan_geometry", "sampling_points"]

Margin = Literal["receptive_field"] | float

SOURCE_REACH = 2.0
"""Source pixels around a point that its value depends on: the cubic B-spline kernel of `groups.images.resample`."""

TAP_REACH = {"bilinear": 1.0, "bspline": 1.5}
"""Map pixels between a sampling point and the farthest pixel it reads, along an axis."""

_EPSILON = 1e-9


@dataclass(frozen=True)
class Geometry:
    """Canvas, model input and map, and how their pixels correspond. Sizes are (height, width), points (x, y).

    The canvas turns about `canvas_pivot`, which comes to lie on `input_pivot` of the model's input, which lies under
    `map_pivot` of the layer's map. Positions p are map pixels; the safe disc has `radius` map pixels about
    `map_pivot`, and `candidates` [n, 2] are the map pixels in it, row by row.
    """

    lattice: Lattice
    input_size: tuple[int, int]
    canvas_size: tuple[int, int]
    map_pivot: tuple[int, int]
    input_pivot: tuple[float, float]
    canvas_pivot: tuple[float, float]
    radius: float
    candidates: tuple[tuple[int, int], ...]

    @property
    def frame(self) -> Frame:
        """The part of a transformed canvas that the model's input shows."""
        return Frame(self.canvas_pivot, self.input_pivot, self.input_size)

    def part(self, first: tuple[int, int], size: tuple[int, int]) -> Geometry:
        """The same geometry with the model run on a part of its input: from pixel `first` (x, y), `size` (h, w).

        `first` is a multiple of the stride, which then is a whole number, so that map pixels stay where they are on
        the picture; their indices fall by `first` / stride. Whether what is read at a position is the same, the caller
        must know: its receptive field must lie in the part. The map's size is not known beforehand.
        """
        stride = int(self.lattice.stride)
        u, v = first[0] // stride, first[1] // stride
        return replace(
            self,
            lattice=replace(self.lattice, map_size=None),
            input_size=size,
            input_pivot=(self.input_pivot[0] - first[0], self.input_pivot[1] - first[1]),
            map_pivot=(self.map_pivot[0] - u, self.map_pivot[1] - v),
            candidates=tuple((x - u, y - v) for x, y in self.candidates),
        )

    def canvas_xy(self, position: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Canvas pixel (x, y) at the centre of a map position's receptive field."""
        offset = np.asarray(position, dtype=np.float64) - self.map_pivot
        return np.asarray(self.canvas_pivot) + self.lattice.stride * offset

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Geometry:
        """The inverse of `to_json`."""
        lattice = dict(values["lattice"])
        lattice["map_size"] = tuple(lattice["map_size"])
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        fields |= {"lattice": Lattice(**lattice), "candidates": tuple((x, y) for x, y in values["candidates"])}
        return cls(**fields)


@dataclass(frozen=True)
class PositionRule:
    """How positions are chosen among the candidates: all, `count` random ones an image, or the pivot."""

    kind: Literal["all", "random", "centre"]
    count: int | None = None

    def per_image(self, geometry: Geometry) -> int:
        """P, the number of positions in each image."""
        return {"all": len(geometry.candidates), "centre": 1, "random": self.count or 0}[self.kind]

    def choose(self, geometry: Geometry, seed: int, image: int) -> npt.NDArray[np.int64]:
        """The positions [P, 2] of one image; random ones depend on the seed and the image's index alone."""
        if self.kind == "centre":
            return np.array([geometry.map_pivot], dtype=np.int64)
        candidates = np.array(geometry.candidates, dtype=np.int64)
        if self.kind == "all":
            return candidates
        chosen = np.random.default_rng([seed, image]).choice(len(candidates), self.count, replace=False)
        return candidates[np.sort(chosen)]


def parse_positions(rule: str) -> PositionRule:
    """`"all"`, `"random:<n>"` or `"centre"`."""
    if rule in ("all", "centre"):
        return PositionRule("all" if rule == "all" else "centre")
    match = re.fullmatch(r"random:([1-9][0-9]*)", rule) if isinstance(rule, str) else None
    if match is None:
        raise argument_error(
            "positions",
            expected='"all", "centre" or "random:<n>"',
            got=rule,
            remedy='"random:16" takes 16 positions of each image, others for every image.',
        )
    return PositionRule("random", int(match[1]))


def plan_geometry(
    lattice: Lattice,
    input_size: tuple[int, int],
    *,
    canvas_size: tuple[int, int] | None,
    interpolation: str = "bspline",
    margin: Margin = "receptive_field",
    turn_input: bool = True,
) -> Geometry:
    """The pivot, the canvas and the safe disc for one layer and input size.

    The pivot is the input pixel under the map index nearest the input's middle. Without a `canvas_size` the canvas is
    a square that covers the input under every rotation about the pivot. Its side is odd or even such that pivot and
    canvas middle differ by whole pixels: multiples of 90° are then copies. A given canvas (images that are used as
    they are) turns about its pixel nearest the middle that has the same property.

    A position is safe if, under every transform, the receptive field of every map pixel that is read for it lies
    inside the input (no zero padding of the network enters) and inside the canvas (no fill). Let q be half the
    receptive field, s the stride and t the interpolation's reach in map pixels. Positions are safe within the radius

        r = min(distance of the pivot from the input's edges − q − t·s,
                distance of the canvas pivot from the canvas's edges − √2·(q + t·s) − 2)

    in input pixels; the points must also lie inside the map. The second line falls away if the input is not turned
    (`turn_input=False`) and the canvas covers the upright input. `margin` in input pixels takes the place of q: a
    layer's effective receptive field is much smaller than its theoretical one (Luo et al. 2016), so half of q lets in
    little of what lies outside.

    Raises:
        ArgumentError: no position is safe; bad `interpolation` or `margin`.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS, 'Use "bspline".')
    if lattice.map_size is None:
        raise argument_error(
            "lattice", expected="a lattice with its map_size", got=lattice, remedy="Use measure_lattice."
        )
    map_limits = (lattice.map_size[1] - 1, lattice.map_size[0] - 1)
    input_limits = (input_size[1] - 1, input_size[0] - 1)
    pivot = (
        _nearest_index(lattice, input_limits[0], map_limits[0]),
        _nearest_index(lattice, input_limits[1], map_limits[1]),
    )
    centre = (lattice.stride * pivot[0] + lattice.offset, lattice.stride * pivot[1] + lattice.offset)
    if canvas_size is None:
        canvas_size = _covering_canvas(centre, input_limits)
    canvas_centre = _canvas_centre(centre, canvas_size, input_size)
    reach = TAP_REACH[interpolation] * lattice.stride
    half = _half(margin, lattice)
    in_input = _distance(centre, input_limits) - half - reach
    in_canvas = _distance(canvas_centre, (canvas_size[1] - 1, canvas_size[0] - 1))
    in_canvas = in_canvas - math.sqrt(2) * (half + reach) - SOURCE_REACH
    if not turn_input and _covers_upright(canvas_centre, canvas_size, centre, input_limits):
        in_canvas = math.inf
    in_map = _distance(pivot, map_limits) - INTERPOLATIONS[interpolation]
    radius = min(in_input / lattice.stride, in_canvas / lattice.stride, float(in_map))
    if radius < 0:
        raise argument_error(
            "input_size",
            expected="an input in which some position's receptive field stays inside under every transform",
            got=f"{input_size[0]} x {input_size[1]} pixels with a canvas of {canvas_size[0]} x {canvas_size[1]} for a "
            f"margin of {half:g} + {reach:g} pixels on each side (receptive field {lattice.receptive_field})",
            remedy=_no_position_remedy(input_size, canvas_size, half, reach, in_map),
        )
    return Geometry(
        lattice=lattice,
        input_size=input_size,
        canvas_size=canvas_size,
        map_pivot=pivot,
        input_pivot=centre,
        canvas_pivot=canvas_centre,
        radius=radius,
        candidates=_disc(pivot, radius),
    )


def _covering_canvas(centre: tuple[float, float], input_limits: tuple[int, int]) -> tuple[int, int]:
    """The square that covers the input at every angle about `centre`."""
    corner = math.hypot(*(max(centre[i], input_limits[i] - centre[i]) for i in (0, 1)))
    side = 2 * math.ceil(corner + SOURCE_REACH) + 1
    if abs(centre[0] % 1 - 0.5) < 0.25:  # a pivot between pixels wants a middle between pixels
        side += 1
    return side, side


def _canvas_centre(
    centre: tuple[float, float], canvas_size: tuple[int, int], input_size: tuple[int, int]
) -> tuple[float, float]:
    """The canvas point that differs from the pivot by whole pixels and lies nearest the canvas's middle.

    On a canvas as large as the input it is the pivot itself, so that the identity leaves every pixel where it was.
    """
    limits = (canvas_size[1] - 1, canvas_size[0] - 1)
    x, y = (centre[i] + (0 if canvas_size == input_size else round(limits[i] / 2 - centre[i])) for i in (0, 1))
    return x, y


def _covers_upright(
    canvas_centre: tuple[float, float],
    canvas_size: tuple[int, int],
    centre: tuple[float, float],
    input_limits: tuple[int, int],
) -> bool:
    """Whether the canvas holds all of the input if nothing is turned."""
    limits = (canvas_size[1] - 1, canvas_size[0] - 1)
    return all(
        canvas_centre[i] >= centre[i] and limits[i] - canvas_centre[i] >= input_limits[i] - centre[i] for i in (0, 1)
    )


def _distance(point: tuple[float, float], limits: tuple[int, int]) -> float:
    """From a point to the nearest edge of pixels 0 to `limits`, along an axis."""
    return min(min(point[i], limits[i] - point[i]) for i in (0, 1))


def _disc(pivot: tuple[int, int], radius: float) -> tuple[tuple[int, int], ...]:
    """The map pixels within `radius` of the pivot, row by row."""
    steps = range(-math.floor(radius), math.floor(radius) + 1)
    limit = radius**2 + _EPSILON
    return tuple((pivot[0] + x, pivot[1] + y) for y in steps for x in steps if x * x + y * y <= limit)


def sampling_points(geometry: Geometry, action: Action, positions: npt.ArrayLike) -> torch.Tensor:
    """Where element g finds position p on its map: u_g = u_c + g·(u_p − u_c), float64 [G, P, 2] as (x, y)."""
    offsets = np.asarray(positions, dtype=np.float64) - geometry.map_pivot
    points = action.move(offsets) + np.asarray(geometry.map_pivot, dtype=np.float64)
    return torch.from_numpy(np.ascontiguousarray(points))


def _nearest_index(lattice: Lattice, input_limit: int, map_limit: int) -> int:
    middle = (input_limit / 2 - lattice.offset) / lattice.stride
    return min(max(math.ceil(middle - 0.5), 0), map_limit)


def _half(margin: Margin, lattice: Lattice) -> float:
    if margin == "receptive_field":
        return (lattice.receptive_field - 1) / 2
    if isinstance(margin, bool) or not isinstance(margin, (int, float)) or not 0 <= margin < math.inf:
        raise argument_error(
            "margin",
            expected='"receptive_field" or a number of input pixels, at least 0',
            got=margin,
            remedy="A number is the half-width around a position that must stay inside the image.",
        )
    return float(margin)


def _no_position_remedy(
    input_size: tuple[int, int], canvas_size: tuple[int, int], half: float, reach: float, in_map: float
) -> str:
    if in_map < 0:
        return "The map is too small to interpolate in: use a larger input_size."
    larger = 32 * math.ceil((2 * (half + reach) + 2 * reach) / 32)
    smaller = max(0, math.floor(min(input_size) / 2 - 2 * reach))
    if canvas_size == input_size or min(canvas_size) < 2 * (half + reach):
        larger = max(larger, 32 * math.ceil(2 * (math.sqrt(2) * (half + reach) + SOURCE_REACH + reach) / 32))
        smaller = max(0, math.floor((min(canvas_size) / 2 - SOURCE_REACH) / math.sqrt(2) - 2 * reach))
        what = f"images of at least {larger} x {larger} pixels"
    else:
        what = f"input_size=({larger}, {larger})"
    return (
        f"Use {what}, or margin=<pixels> for a smaller region than the whole receptive field, "
        f"which lies within about {smaller} pixels here (half the receptive field is {half:g})."
    )
