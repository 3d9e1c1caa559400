"""How the elements of a group move images and positions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from groupcc.errors import argument_error
from groupcc.groups.algebra import Group
from groupcc.groups.arrays import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    import torch

    from groupcc.groups.images import Frame

__all__ = ["Action"]


class Action(ABC):
    """T_g on images and g· on positions, for every element g of `group`.

    What needs the Cayley table, irreps or subgroups takes a [`Group`][groupcc.groups.Group]. What moves pixels or
    positions takes an action. Both must fit: T_g T_h = T_gh, and g·(h·p) = (gh)·p.

    A new action is a subclass with `kind`, `exact` and `transform`. If it moves positions, it also overrides `moves`
    and `move`; as they stand here every position stays in place (hue, contrast). Stores record `kind`, so a call of
    [`register_action`][groupcc.groups.register_action] is what lets a store show its pictures again.
    """

    kind: ClassVar[str]
    """Name of this kind of action, recorded in stores."""

    moves: ClassVar[bool] = False
    """Whether positions move. If they don't, no margin for turning is kept, and all elements read the same pixel."""

    def __init__(self, group: Group) -> None:
        self.group = group

    @property
    @abstractmethod
    def exact(self) -> BoolArray:
        """Which elements need no interpolation, bool [G]."""

    @abstractmethod
    def transform(
        self,
        images: torch.Tensor,
        elements: Sequence[int] | None = None,
        frame: Frame | None = None,
        *,
        antialias: bool = True,
    ) -> torch.Tensor:
        """T_g x for each of `elements` (None: all, in order): [B, C, H, W] → [B, len(elements), C, h, w].

        `frame` says which part of the source the output shows; None is all of it. With `antialias` every element
        passes through the same low-pass. An action without motion shows the frame upright.
        """

    def move(self, offsets: npt.ArrayLike, elements: Sequence[int] | None = None) -> FloatArray:
        """Where each element carries points at these offsets from the fixed point: [P, 2] → float64 [S, P, 2].

        Offsets are (x, y) in pixels of an image or of a map, y down.
        """
        still = np.asarray(offsets, dtype=np.float64)
        return np.broadcast_to(still, (len(self.chosen(elements)), *still.shape))

    def chosen(self, elements: Sequence[int] | None) -> IntArray:
        """The elements as an array, all of them for None; ArgumentError for an index that the group lacks."""
        order = self.group.order
        if elements is None:
            return np.arange(order)
        chosen = [int(g) for g in elements]
        if any(g < 0 or g >= order for g in chosen):
            raise argument_error(
                "elements",
                expected=f"indices from 0 to {order - 1}",
                got=chosen,
                remedy=f"{self.group.name} has {order} elements.",
            )
        return np.array(chosen, dtype=np.int64)
