"""The shapes of the known bank: one formula each, with the symmetry that can be read off it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from groupcc.errors import argument_error
from groupcc.groups import PlanarGroup, PlanarSubgroup
from groupcc.groups.arrays import FloatArray

__all__ = ["MIN_SIZE", "SHAPES", "Shape", "kernel", "offsets", "stabilizer", "window"]

MIN_SIZE = 17
"""Least side of a kernel in pixels: below, the finest formula is no longer resolved by the pixels."""


@dataclass(frozen=True)
class Shape:
    """A shape by its formula, for filters that see it at every element of a group.

    - `formula`: f(x, y) with x to the right and y down, in units of the kernel's radius. A shape with a mirror has it
      at x → −x.
    - `rotations`: m if turns by 360°/m, and no smaller ones, leave f as it is; 0 if every turn does.
    - `mirror`: whether x → −x leaves f as it is. A shape that no mirror at any angle leaves as it is, is chiral.
    - `plane`: what the filter looks at, the "grey" of a photograph or its "opponent" plane (red against blue).
    - `scale`: see `Filters`.
    """

    formula: Callable[[FloatArray, FloatArray], FloatArray]
    rotations: int
    mirror: bool
    scale: float
    plane: Literal["grey", "opponent"] = "grey"


def _bar(t: FloatArray, width: float) -> FloatArray:
    return (1 - (t / width) ** 2) * np.exp(-0.5 * (t / width) ** 2)


def _step(t: FloatArray, width: float) -> FloatArray:
    return t * np.exp(-0.5 * (t / width) ** 2)


def _line(x: FloatArray, y: FloatArray) -> FloatArray:
    return _bar(x, 0.15)


def _edge(x: FloatArray, y: FloatArray) -> FloatArray:
    return _step(y, 0.17)


def _curve(x: FloatArray, y: FloatArray) -> FloatArray:
    return _bar(np.hypot(x, y - 0.55) - 0.55, 0.14)


def _circle(x: FloatArray, y: FloatArray) -> FloatArray:
    return _bar(np.hypot(x, y) - 0.4, 0.15)


def _corner(x: FloatArray, y: FloatArray) -> FloatArray:
    return _step((y + np.hypot(x, 0.1) - 0.15) / 2**0.5, 0.12)


def _hatch(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.cos(2 * np.pi * x / 0.6) + np.cos(2 * np.pi * y / 0.6)


def _spiral(x: FloatArray, y: FloatArray) -> FloatArray:
    square = x**2 + y**2
    turn = 6 * square
    # The chord to the arm at the same radius, which crosses it at a slant that grows with the radius.
    chord = np.sqrt(2 * (np.sqrt(square + 0.01) - x * np.cos(turn) - y * np.sin(turn)))
    return _bar(chord / np.hypot(1, 12 * square), 0.13)


def _s_curve(x: FloatArray, y: FloatArray) -> FloatArray:
    phase = 2 * np.pi * y / 1.4
    slope = 0.3 * 2 * np.pi / 1.4 * np.cos(phase)
    return _bar((x - 0.3 * np.sin(phase)) / np.hypot(1, slope), 0.15)


def _high_low_frequency(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.cos(2 * np.pi * (1.4 * y + 0.55 * y**2))


def _colour_blob(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.exp(-0.5 * (x**2 + y**2) / 0.4**2)


SHAPES: dict[str, Shape] = {
    "line": Shape(_line, 2, True, 0.24),
    "edge": Shape(_edge, 1, True, 0.45),
    "curve": Shape(_curve, 1, True, 0.25),
    "circle": Shape(_circle, 0, True, 0.145),
    "corner": Shape(_corner, 1, True, 0.35),
    "hatch": Shape(_hatch, 4, True, 0.17),
    "spiral": Shape(_spiral, 1, False, 0.26),
    "S-curve": Shape(_s_curve, 2, False, 0.23),
    "high-low frequency": Shape(_high_low_frequency, 1, True, 0.3),
    "colour blob": Shape(_colour_blob, 0, True, 0.21, plane="opponent"),
}


def stabilizer(shape: Shape, group: PlanarGroup) -> PlanarSubgroup:
    """The elements of `group` that leave the shape as it is in its pose 0: a turn by 2πr/n does if n | r·m."""
    steps = np.arange(group.order) % group.n
    turns = (steps * shape.rotations) % group.n == 0
    return group.subgroup_of(turns & (~group.reflections | shape.mirror))


def offsets(size: int) -> FloatArray:
    """Pixel offsets (x, y) from the middle in units of the radius size/2, [size, size, 2]."""
    if isinstance(size, bool) or not isinstance(size, int) or size < MIN_SIZE or size % 2 == 0:
        raise argument_error(
            "size",
            expected=f"an odd whole number of at least {MIN_SIZE}",
            got=size,
            remedy="A kernel turns about its middle pixel and must resolve the finest shape.",
        )
    along = (np.arange(size) - size // 2) / (size / 2)
    return np.stack(np.meshgrid(along, along), axis=-1)


def window(points: FloatArray) -> FloatArray:
    """(1 − r²)³ inside the unit disc, 0 outside, at points [..., 2]: smooth at the edge, so no turn cuts a shape."""
    return np.clip(1 - (points**2).sum(-1), 0, None) ** 3


def kernel(shape: Shape, group: PlanarGroup, h: int, size: int) -> FloatArray:
    """The filter of a shape at element h, float64 [size, size]: w(p) = v(p)·(f(M_h⁻¹p) − f̄), scaled.

    The formula itself is sampled at the turned pixel offsets and nothing is interpolated. So the filter at h is T_h of
    the one at e up to the sampling of a smooth function: at 25 pixels within 2 % of its norm as `PlaneAction` turns it
    (spiral 5 %), and exactly at multiples of 90°. v is `window`. f̄ = Σ v·f / Σ v makes the filter blind to the mean of
    its plane, brightness or cast. Σ w²/v = 1 makes the response to a patch of unit contrast at most 1 (Cauchy–Schwarz).
    """
    points = offsets(size)
    v = window(points)
    v = v / v.sum()
    x, y = np.moveaxis(points @ group.matrices[group.inverse[h]].T, -1, 0)
    f = shape.formula(x, y)
    f = f - (v * f).sum()
    return v * f / np.sqrt((v * f**2).sum())
