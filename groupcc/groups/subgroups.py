"""Every subgroup of C_n and D_n, with standard names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.groups.algebra import BoolArray, Group, format_degrees

__all__ = ["Subgroup", "all_subgroups"]


@dataclass(frozen=True, eq=False)
class Subgroup:
    """A subgroup H of G.

    `name` is its type (`C1`, `C4`, `D2`); `label` tells same-typed ones apart by a mirror axis (`D1@90°`: the axis
    with the smallest angle, degrees counter-clockwise from horizontal as seen). `mask` is bool [G]. Subgroups with
    the same `conjugacy_class` are turned into one another by an element of G.
    """

    name: str
    label: str
    order: int
    rotations: int
    axis: float | None
    mask: BoolArray
    conjugacy_class: int

    @property
    def elements(self) -> list[int]:
        """The indices of its elements, ascending."""
        return np.flatnonzero(self.mask).tolist()


def all_subgroups(group: Group) -> tuple[Subgroup, ...]:
    """Every subgroup of `group`, by order; rotations only before those with reflections; then by axis.

    D_n has C_d (one for each divisor d of n) and D_d (n/d of them for each d, told apart by the first mirror step
    k = 0 … n/d − 1): τ(n) + σ(n) in all. D_d with mirror steps k and k + 2 are conjugate by a rotation, so there
    is one class where n/d is odd and there are two where it is even.
    """
    n = group.n
    found: list[tuple[int, bool, float, Subgroup]] = []
    next_class = 0
    for d in (d for d in range(1, n + 1) if n % d == 0):
        spacing = n // d
        rotations = np.zeros(group.order, dtype=bool)
        rotations[0:n:spacing] = True
        name = f"C{d}"
        found.append((d, False, 0.0, Subgroup(name, name, d, d, None, _read_only(rotations), next_class)))
        next_class += 1
        if group.kind == "cyclic":
            continue
        classes = 1 if spacing % 2 else 2
        for k in range(spacing):
            mask = rotations.copy()
            mask[n + k :: spacing] = True
            axis = float(np.nanmin(np.where(mask, group.axes, np.nan)))
            name = f"D{d}"
            label = name if spacing == 1 else f"{name}@{format_degrees(axis)}"
            subgroup = Subgroup(name, label, 2 * d, d, axis, _read_only(mask), next_class + k % classes)
            found.append((2 * d, True, axis, subgroup))
        next_class += classes
    return tuple(subgroup for *_, subgroup in sorted(found, key=lambda item: item[:3]))


def _read_only(mask: BoolArray) -> BoolArray:
    mask.setflags(write=False)
    return mask
