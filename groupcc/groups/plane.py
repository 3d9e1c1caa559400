"""C_n and D_n turning and mirroring images about a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from groupcc.groups.action import Action
from groupcc.groups.algebra import Group
from groupcc.groups.arrays import BoolArray, FloatArray
from groupcc.groups.planar import PlanarGroup, as_planar

if TYPE_CHECKING:
    import torch

    from groupcc.groups.images import Frame

__all__ = ["PlaneAction"]


class PlaneAction(Action):
    """(T_g x)(p) = x(g⁻¹p) about the frame's centre, and g·p the same turn of a position.

    Multiples of 90° are exact. [`resample`][groupcc.groups.images.resample] has the numerics.
    """

    kind: ClassVar[str] = "plane"
    moves: ClassVar[bool] = True

    group: PlanarGroup

    def __init__(self, group: Group) -> None:
        super().__init__(as_planar(group, "turning images"))

    @property
    def exact(self) -> BoolArray:
        return self.group.exact

    def transform(
        self,
        images: torch.Tensor,
        elements: Sequence[int] | None = None,
        frame: Frame | None = None,
        *,
        antialias: bool = True,
    ) -> torch.Tensor:
        from groupcc.groups.images import WHOLE, resample

        chosen = self.chosen(elements)
        backward = self.group.matrices[self.group.inverse[chosen]]
        return resample(images, backward, self.group.exact[chosen], frame or WHOLE, antialias=antialias)

    def move(self, offsets: npt.ArrayLike, elements: Sequence[int] | None = None) -> FloatArray:
        matrices = self.group.matrices[self.chosen(elements)]
        return np.einsum("gij,pj->gpi", matrices, np.asarray(offsets, dtype=np.float64))
