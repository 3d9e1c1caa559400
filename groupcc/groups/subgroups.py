"""A subgroup as a mask over the elements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.groups.arrays import BoolArray

__all__ = ["Subgroup"]


@dataclass(frozen=True, eq=False)
class Subgroup:
    """A subgroup H of G.

    `name` is its type (`C4`), which several subgroups may have; `label` is its own. `mask` is bool [G]. Subgroups
    with the same `conjugacy_class` are turned into one another by an element of G.
    """

    name: str
    label: str
    order: int
    mask: BoolArray
    conjugacy_class: int

    @property
    def elements(self) -> list[int]:
        """The indices of its elements, ascending."""
        return np.flatnonzero(self.mask).tolist()
