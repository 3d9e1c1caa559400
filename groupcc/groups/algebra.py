"""A finite group by its Cayley table: all that models, ops and training ask of a group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from groupcc.errors import argument_error
from groupcc.groups.arrays import BoolArray, IntArray, frozen
from groupcc.groups.irreps import Irrep
from groupcc.groups.subgroups import Subgroup

__all__ = ["Group"]


class Group(ABC):
    """A finite group. Its elements are the numbers 0 to |G| − 1, and 0 is the identity.

    `cayley[g, h]` is the index of g∘h, where h acts first. In D_3 the rotations are 0, 1, 2 and the reflections 3, 4,
    5: `cayley[1, 3]` = 4 (reflect, then turn), `cayley[3, 1]` = 5 (turn, then reflect).

    A group moves nothing. How its elements move images and positions, an [`Action`][groupcc.groups.Action] says.

    A new kind of group is a subclass with `name`, `cayley`, `element_names`, `irreps` and `subgroups`, equal by value
    and hashable, and a call of [`register_group`][groupcc.groups.register_group], by which files find it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What `groupcc.group` takes, and what files record: `C8`, `D32`."""

    @property
    @abstractmethod
    def cayley(self) -> IntArray:
        """`cayley[g, h]` = index of g∘h (h acts first), int64 [G, G]."""

    @property
    @abstractmethod
    def element_names(self) -> tuple[str, ...]:
        """A readable name for each element; the identity is `e`."""

    @abstractmethod
    def irreps(self) -> Sequence[Irrep]:
        """The real orthogonal irreducible representations, trivial first ([`Irrep`][groupcc.groups.Irrep])."""

    @abstractmethod
    def subgroups(self) -> Sequence[Subgroup]:
        """Every subgroup, by rising order ([`Subgroup`][groupcc.groups.Subgroup])."""

    @property
    def order(self) -> int:
        """|G|, the number of elements."""
        return len(self.cayley)

    def __len__(self) -> int:
        return self.order

    def __str__(self) -> str:
        return self.name

    @property
    def identity(self) -> int:
        """The identity's index: always 0."""
        return 0

    @cached_property
    def inverse(self) -> IntArray:
        """`inverse[g]` = index of g⁻¹, int64 [G]."""
        return frozen(np.argmin(self.cayley, axis=1).astype(np.int64))

    @cached_property
    def right_translation(self) -> IntArray:
        """Row h holds the gather index of R_h: (R_h d)_g = d_{gh} = d[right_translation[h]][g], int64 [H, G]."""
        return frozen(np.ascontiguousarray(self.cayley.T))

    def closure(self, mask: npt.ArrayLike) -> BoolArray:
        """The smallest subgroup that contains the elements in `mask` (bool [G]), as a bool mask [G]."""
        member = np.array(self._element_mask(mask))
        member[0] = True
        while True:
            elements = np.flatnonzero(member)
            products = np.unique(self.cayley[np.ix_(elements, elements)])
            if len(products) == len(elements):
                return member
            member[products] = True

    def subgroup_of(self, mask: npt.ArrayLike) -> Subgroup:
        """The subgroup whose elements are exactly those in `mask` (bool [G]); ArgumentError if they are not closed."""
        return self.subgroups()[self._place_of(mask)]

    def subgroup_named(self, label: str) -> Subgroup:
        """The subgroup with this label (`C4`, `D2@45°`), or with this type if only one has it (`D16`)."""
        return self.subgroups()[self._place_named(label)]

    def _place_of(self, mask: npt.ArrayLike) -> int:
        wanted = self._element_mask(mask)
        for place, subgroup in enumerate(self.subgroups()):
            if np.array_equal(subgroup.mask, wanted):
                return place
        raise argument_error(
            "mask",
            expected=f"the elements of a subgroup of {self.name}",
            got=f"the elements {np.flatnonzero(wanted).tolist()}, which are not closed",
            remedy="Close them first with group.closure(mask).",
        )

    def _place_named(self, label: str) -> int:
        subgroups = self.subgroups()
        places = [i for i, s in enumerate(subgroups) if s.label == label]
        places = places or [i for i, s in enumerate(subgroups) if s.name == label]
        if len(places) == 1:
            return places[0]
        labels = ", ".join(subgroups[i].label for i in (places or range(len(subgroups)))[:40])
        raise argument_error(
            "label",
            expected=f"the label of one subgroup of {self.name}",
            got=label,
            remedy=f"Use one of: {labels}.",
        )

    def _element_mask(self, mask: npt.ArrayLike) -> BoolArray:
        array = np.asarray(mask)
        if array.dtype != np.bool_ or array.shape != (self.order,):
            raise argument_error(
                "mask",
                expected=f"a bool array of shape ({self.order},)",
                got=f"dtype {array.dtype} of shape {array.shape}",
                remedy="Give one bool for each element of the group.",
            )
        return array
