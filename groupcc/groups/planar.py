"""C_n and D_n: rotations and reflections of the plane, their names, irreps and subgroups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from groupcc.errors import argument_error
from groupcc.groups.algebra import Group
from groupcc.groups.arrays import BoolArray, FloatArray, IntArray, frozen
from groupcc.groups.irreps import Irrep
from groupcc.groups.subgroups import Subgroup

if TYPE_CHECKING:
    import torch

__all__ = ["PlanarGroup", "PlanarIrrep", "PlanarSubgroup", "as_planar", "cyclic", "dihedral", "format_degrees"]


@dataclass(frozen=True, eq=False)
class PlanarIrrep(Irrep):
    """An irrep of C_n or D_n of `frequency` k: a rotation by θ turns by kθ."""

    frequency: int


@dataclass(frozen=True, eq=False)
class PlanarSubgroup(Subgroup):
    """A subgroup of C_n or D_n: `rotations` many rotations, and as many reflections if it has a mirror `axis`.

    `name` is its type (`C1`, `C4`, `D2`). `label` tells those of one type apart by a mirror axis (`D1@90°`). `axis` is
    the one with the smallest angle, in degrees counter-clockwise from horizontal as seen; None without reflections.
    """

    rotations: int
    axis: float | None


@dataclass(frozen=True)
class PlanarGroup(Group):
    """The cyclic group C_n or the dihedral group D_n: rotations of the plane, and reflections.

    Element g = r + n·s reflects s times (x → −x), then rotates by 2πr/n counter-clockwise as seen; C_n has only
    s = 0. Composition (r1, s1)(r2, s2) = (r1 + (−1)^s1 · r2 mod n, s1 xor s2); `cayley[g, h]` is g∘h, h first.

    Equal by value and hashable. Made by [`cyclic`][groupcc.cyclic], [`dihedral`][groupcc.dihedral] or
    [`group`][groupcc.group].
    """

    kind: Literal["cyclic", "dihedral"]
    n: int

    @cached_property
    def name(self) -> str:
        """`C8`, `D32`."""
        return f"{'C' if self.kind == 'cyclic' else 'D'}{self.n}"

    @cached_property
    def order(self) -> int:
        """|G|, the number of elements."""
        return self.n if self.kind == "cyclic" else 2 * self.n

    def __str__(self) -> str:
        return self.name

    @cached_property
    def _steps(self) -> IntArray:
        return np.arange(self.order) % self.n

    @cached_property
    def reflections(self) -> BoolArray:
        """Which elements reflect, bool [G]."""
        return frozen(np.arange(self.order) >= self.n)

    @cached_property
    def angles(self) -> FloatArray:
        """Each element's rotation 2πr/n in radians, counter-clockwise as seen, [G]; a reflection comes before it."""
        return frozen(2 * np.pi * self._steps / self.n)

    @cached_property
    def cayley(self) -> IntArray:
        """`cayley[g, h]` = index of g∘h (h acts first), int64 [G, G]."""
        r, s = self._steps, self.reflections.astype(np.int64)
        r_new = (r[:, None] + np.where(s[:, None] == 1, -1, 1) * r[None, :]) % self.n
        return frozen(r_new + self.n * (s[:, None] ^ s[None, :]))

    @cached_property
    def matrices(self) -> FloatArray:
        """Each element as a matrix on pixel offsets (x to the right, y down), float64 [G, 2, 2].

        Entries of multiples of 90° are exactly 0, 1 and −1.
        """
        quarter, rest = np.divmod(4 * self._steps, self.n)
        cos = np.where(rest == 0, np.array([1, 0, -1, 0])[quarter % 4], np.cos(self.angles))
        sin = np.where(rest == 0, np.array([0, 1, 0, -1])[quarter % 4], np.sin(self.angles))
        mirror = np.where(self.reflections, -1.0, 1.0)
        # y points down, so a counter-clockwise turn as seen is [[c, s], [-s, c]].
        rows = np.stack([np.stack([cos * mirror, sin], -1), np.stack([-sin * mirror, cos], -1)], -2)
        return frozen(rows + 0.0)

    @cached_property
    def exact(self) -> BoolArray:
        """Which elements map the pixel lattice onto itself (multiples of 90°), bool [G]."""
        return frozen(4 * self._steps % self.n == 0)

    @cached_property
    def axes(self) -> FloatArray:
        """Mirror axis of each reflection in degrees, counter-clockwise from horizontal as seen, in [0, 180).

        NaN for rotations. The element (r, 1) mirrors in the line at 90° + 180°·r/n.
        """
        return frozen(np.where(self.reflections, (90.0 + 180.0 * self._steps / self.n) % 180.0, np.nan))

    @cached_property
    def element_names(self) -> tuple[str, ...]:
        """Readable names: `e`, rotations as `90°`, reflections as `m·90°` (mirrored x → −x, then turned by 90°)."""
        names = []
        for r, s in zip(self._steps, self.reflections, strict=True):
            angle = format_degrees(360.0 * r / self.n)
            names.append(f"m·{angle}" if s else ("e" if r == 0 else angle))
        return tuple(names)

    @cached_property
    def _irreps(self) -> tuple[PlanarIrrep, ...]:
        return _irreps_of(self)

    def irreps(self) -> tuple[PlanarIrrep, ...]:
        """The real orthogonal irreducible representations, trivial first ([`PlanarIrrep`][groupcc.groups.PlanarIrrep]).

        By frequency; of one frequency the mirror-even one comes first. `A<k>` is one-dimensional at frequency k (0 or
        n/2), primed if the mirror x → −x is −1; `E<k>` is the two-dimensional one at frequency k.
        """
        return self._irreps

    @cached_property
    def _subgroups(self) -> tuple[PlanarSubgroup, ...]:
        return _subgroups_of(self)

    def subgroups(self) -> tuple[PlanarSubgroup, ...]:
        """Every subgroup, by order, rotations before reflections, then by axis.

        D_n has C_d (one for each divisor d of n) and D_d (n/d of them for each d, told apart by the first mirror step
        k = 0 … n/d − 1): τ(n) + σ(n) in all. D_d with mirror steps k and k + 2 are conjugate by a rotation, so there
        is one class if n/d is odd and there are two if n/d is even.
        """
        return self._subgroups

    def subgroup_of(self, mask: npt.ArrayLike) -> PlanarSubgroup:
        """The subgroup whose elements are exactly those in `mask` (bool [G]); ArgumentError if they are not closed."""
        return self.subgroups()[self._place_of(mask)]

    def subgroup_named(self, label: str) -> PlanarSubgroup:
        """The subgroup with this label (`C4`, `D2@45°`), or with this type if only one has it (`D16`)."""
        return self.subgroups()[self._place_named(label)]

    def orbit(self, images: torch.Tensor, *, antialias: bool = True) -> torch.Tensor:
        """Every transform of each image: [..., C, H, W] → [..., G, C, H, W], in element order.

        (T_g x)(p) = x(g⁻¹p) about the image's centre; what the turned image doesn't cover is 0. A shortcut for the
        plane's action; numerics as in [`resample`][groupcc.groups.images.resample].
        """
        from groupcc.groups.images import resample_each

        return resample_each(images, self.matrices[self.inverse], self.exact, antialias=antialias)


def _irreps_of(group: PlanarGroup) -> tuple[PlanarIrrep, ...]:
    n = group.n
    steps = np.arange(group.order) % n
    mirror = np.where(group.reflections, -1.0, 1.0)
    irreps: list[PlanarIrrep] = []
    for k in range(n // 2 + 1):
        if 2 * k % n == 0:
            rotation_sign = np.where((steps % 2 == 1) & (k != 0), -1.0, 1.0)
            irreps.append(PlanarIrrep(f"A{k}", 1, 1, rotation_sign.reshape(-1, 1, 1), k))
            if group.kind == "dihedral":
                irreps.append(PlanarIrrep(f"A{k}'", 1, 1, (rotation_sign * mirror).reshape(-1, 1, 1), k))
            continue
        phase = 2 * np.pi * (k * steps % n) / n
        cos, sin = np.cos(phase), np.sin(phase)
        matrices = np.stack([np.stack([cos, -sin * mirror], -1), np.stack([sin, cos * mirror], -1)], -2)
        irreps.append(PlanarIrrep(f"E{k}", 2, 2 if group.kind == "cyclic" else 1, matrices, k))
    return tuple(irreps)


def _subgroups_of(group: PlanarGroup) -> tuple[PlanarSubgroup, ...]:
    n = group.n
    subgroups: list[PlanarSubgroup] = []
    next_class = 0
    for d in (d for d in range(1, n + 1) if n % d == 0):
        spacing = n // d
        rotations = np.zeros(group.order, dtype=bool)
        rotations[0:n:spacing] = True
        name = f"C{d}"
        subgroups.append(PlanarSubgroup(name, name, d, frozen(rotations), next_class, d, None))
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
            subgroups.append(PlanarSubgroup(name, label, 2 * d, frozen(mask), next_class + k % classes, d, axis))
        next_class += classes
    return tuple(sorted(subgroups, key=lambda s: (s.order, s.axis is not None, s.axis or 0.0)))


def format_degrees(degrees: float) -> str:
    """`22.5°`, `90°`: at most two decimals, no trailing zeros."""
    text = f"{degrees:.2f}".rstrip("0").rstrip(".")
    return f"{'0' if text == '-0' else text}°"


def cyclic(n: int) -> PlanarGroup:
    """C_n: the n rotations by multiples of 2π/n."""
    return PlanarGroup("cyclic", _rotations("n", n))


def dihedral(n: int) -> PlanarGroup:
    """D_n: the n rotations by multiples of 2π/n and n reflections, 2n elements. D_32 has 64."""
    return PlanarGroup("dihedral", _rotations("n", n))


def _rotations(name: str, n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise argument_error(
            name,
            expected="a whole number of rotations, at least 1",
            got=n,
            remedy="cyclic(4) and dihedral(4) are C4 and D4.",
        )
    return int(n)


def as_planar(group: Group, what: str) -> PlanarGroup:
    """The group, if it is C_n or D_n; ArgumentError otherwise. `what` is the thing that reads angles and axes."""
    if isinstance(group, PlanarGroup):
        return group
    raise argument_error(
        "group",
        expected=f"C<n> or D<n>, whose angles and mirror axes {what} reads",
        got=group.name,
        remedy="Ops, training and stores take any group.",
    )
