"""Finite groups of rotations and reflections of the plane: elements, Cayley table, matrices."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from groupcc.errors import argument_error

if TYPE_CHECKING:
    import torch

    from groupcc.groups.irreps import Irrep
    from groupcc.groups.subgroups import Subgroup

__all__ = ["Group", "cyclic", "dihedral", "group"]

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def format_degrees(degrees: float) -> str:
    """`22.5°`, `90°`: at most two decimals, no trailing zeros."""
    text = f"{degrees:.2f}".rstrip("0").rstrip(".")
    return f"{'0' if text == '-0' else text}°"


@dataclass(frozen=True)
class Group:
    """The cyclic group C_n or the dihedral group D_n, acting on the plane.

    Element g = r + n·s reflects s times (x → −x), then rotates by 2πr/n counter-clockwise as seen; C_n has only
    s = 0. Composition (r1, s1)(r2, s2) = (r1 + (−1)^s1 · r2 mod n, s1 xor s2); `cayley[g, h]` is g∘h, h first.

    Equal by value and hashable. Made by [`cyclic`][groupcc.cyclic], [`dihedral`][groupcc.dihedral] or
    [`group`][groupcc.group].
    """

    kind: Literal["cyclic", "dihedral"]
    n: int

    @property
    def name(self) -> str:
        """`C8`, `D32`."""
        return f"{'C' if self.kind == 'cyclic' else 'D'}{self.n}"

    @property
    def order(self) -> int:
        """|G|, the number of elements."""
        return self.n if self.kind == "cyclic" else 2 * self.n

    def __len__(self) -> int:
        return self.order

    def __str__(self) -> str:
        return self.name

    @property
    def identity(self) -> int:
        """The identity's index: always 0."""
        return 0

    @cached_property
    def _steps(self) -> IntArray:
        return np.arange(self.order) % self.n

    @cached_property
    def reflections(self) -> BoolArray:
        """Which elements reflect, bool [G]."""
        return _frozen(np.arange(self.order) >= self.n)

    @cached_property
    def angles(self) -> FloatArray:
        """Each element's rotation 2πr/n in radians, counter-clockwise as seen, [G]; a reflection comes before it."""
        return _frozen(2 * np.pi * self._steps / self.n)

    @cached_property
    def cayley(self) -> IntArray:
        """`cayley[g, h]` = index of g∘h (h acts first), int64 [G, G]."""
        r, s = self._steps, self.reflections.astype(np.int64)
        r_new = (r[:, None] + np.where(s[:, None] == 1, -1, 1) * r[None, :]) % self.n
        return _frozen(r_new + self.n * (s[:, None] ^ s[None, :]))

    @cached_property
    def inverse(self) -> IntArray:
        """`inverse[g]` = index of g⁻¹, int64 [G]."""
        return _frozen(np.argmin(self.cayley, axis=1).astype(np.int64))

    @cached_property
    def right_translation(self) -> IntArray:
        """Row h holds the gather index of R_h: (R_h d)_g = d_{gh} = d[right_translation[h]][g], int64 [H, G]."""
        return _frozen(np.ascontiguousarray(self.cayley.T))

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
        return _frozen(rows + 0.0)

    @cached_property
    def exact(self) -> BoolArray:
        """Which elements map the pixel lattice onto itself (multiples of 90°), bool [G]."""
        return _frozen(4 * self._steps % self.n == 0)

    @cached_property
    def axes(self) -> FloatArray:
        """Mirror axis of each reflection in degrees, counter-clockwise from horizontal as seen, in [0, 180).

        NaN for rotations. The element (r, 1) mirrors in the line at 90° + 180°·r/n.
        """
        return _frozen(np.where(self.reflections, (90.0 + 180.0 * self._steps / self.n) % 180.0, np.nan))

    @cached_property
    def element_names(self) -> tuple[str, ...]:
        """Readable names: `e`, rotations as `90°`, reflections as `m·90°` (mirrored x → −x, then turned by 90°)."""
        names = []
        for r, s in zip(self._steps, self.reflections, strict=True):
            angle = format_degrees(360.0 * r / self.n)
            names.append(f"m·{angle}" if s else ("e" if r == 0 else angle))
        return tuple(names)

    @cached_property
    def _irreps(self) -> tuple[Irrep, ...]:
        from groupcc.groups.irreps import real_irreps

        return real_irreps(self)

    def irreps(self) -> tuple[Irrep, ...]:
        """The real orthogonal irreducible representations, trivial first ([`Irrep`][groupcc.groups.Irrep])."""
        return self._irreps

    @cached_property
    def _subgroups(self) -> tuple[Subgroup, ...]:
        from groupcc.groups.subgroups import all_subgroups

        return all_subgroups(self)

    def subgroups(self) -> tuple[Subgroup, ...]:
        """Every subgroup, by order, rotations before reflections ([`Subgroup`][groupcc.groups.Subgroup])."""
        return self._subgroups

    def closure(self, mask: npt.ArrayLike) -> BoolArray:
        """The smallest subgroup that contains the elements in `mask` (bool [G]), as a bool mask [G]."""
        member = np.array(_element_mask(self, mask))
        member[0] = True
        while True:
            elements = np.flatnonzero(member)
            products = np.unique(self.cayley[np.ix_(elements, elements)])
            if len(products) == len(elements):
                return member
            member[products] = True

    def subgroup_of(self, mask: npt.ArrayLike) -> Subgroup:
        """The subgroup whose elements are exactly those in `mask` (bool [G]); ArgumentError if they are not closed."""
        wanted = _element_mask(self, mask)
        for subgroup in self.subgroups():
            if np.array_equal(subgroup.mask, wanted):
                return subgroup
        raise argument_error(
            "mask",
            expected=f"the elements of a subgroup of {self.name}",
            got=f"the elements {np.flatnonzero(wanted).tolist()}, which are not closed",
            remedy="Close them first with group.closure(mask).",
        )

    def subgroup_named(self, label: str) -> Subgroup:
        """The subgroup with this label (`C4`, `D2@45°`), or with this type where only one has it (`D16`)."""
        found = [s for s in self.subgroups() if s.label == label] or [s for s in self.subgroups() if s.name == label]
        if len(found) == 1:
            return found[0]
        labels = ", ".join(s.label for s in (found or self.subgroups())[:40])
        raise argument_error(
            "label",
            expected=f"the label of one subgroup of {self.name}",
            got=label,
            remedy=f"Use one of: {labels}.",
        )

    def orbit(self, images: torch.Tensor, **options: Any) -> torch.Tensor:
        """Every transform of each image: [..., C, H, W] → [..., G, C, H, W], in element order.

        (T_g x)(p) = x(g⁻¹p) about the image's centre. Options and numerics:
        [`transform_images`][groupcc.groups.images.transform_images].
        """
        from groupcc.groups.images import orbit

        return orbit(images, self, **options)


def _frozen(array: Any) -> Any:
    array = np.array(array)
    array.setflags(write=False)
    return array


def _element_mask(group: Group, mask: npt.ArrayLike) -> BoolArray:
    array = np.asarray(mask)
    if array.dtype != np.bool_ or array.shape != (group.order,):
        raise argument_error(
            "mask",
            expected=f"a bool array of shape ({group.order},)",
            got=f"dtype {array.dtype} of shape {array.shape}",
            remedy="Give one bool for each element of the group.",
        )
    return array


def _order(name: str, n: object) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise argument_error(
            name,
            expected="a whole number of rotations, at least 1",
            got=n,
            remedy="cyclic(4) and dihedral(4) are C4 and D4.",
        )
    return int(n)


def cyclic(n: int) -> Group:
    """C_n: the n rotations by multiples of 2π/n."""
    return Group("cyclic", _order("n", n))


def dihedral(n: int) -> Group:
    """D_n: the n rotations by multiples of 2π/n and n reflections, 2n elements. D_32 has 64."""
    return Group("dihedral", _order("n", n))


def group(spec: str | Group) -> Group:
    """The group of that name: `"C<n>"` or `"D<n>"`, n rotations (`"D32"` has 64 elements); a Group is returned as is.

    The number counts rotations. Whether the paper's "D32" has 32 rotations or 32 elements its text leaves open; the
    second reading is `"D16"` here.
    """
    if isinstance(spec, Group):
        return spec
    match = re.fullmatch(r"([CD])([1-9][0-9]*)", spec.strip().upper()) if isinstance(spec, str) else None
    if match is None:
        raise argument_error(
            "group",
            expected='"C<n>" or "D<n>" with n >= 1',
            got=spec,
            remedy='For example "C8" (8 rotations) or "D32" (32 rotations and 32 reflections).',
        )
    n = int(match[2])
    return cyclic(n) if match[1] == "C" else dihedral(n)
