"""Coverage of a family: in which orientations its shape has a detector, and where none is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.analysis.families.dial import DialRing, Rings, pose_rings
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import BoolArray, IntArray

__all__ = ["Coverage", "read_coverage"]


@dataclass(frozen=True, eq=False)
class Coverage(Rings):
    """Which of the distinct poses of a family's shape have a detector: what `read_coverage` returns.

    - `turned`, `mirrored`: see `Rings`. Their `counts` are the members in each pose, their `gaps` the poses without a
      detector.
    """

    @property
    def covered(self) -> float:
        """Share of all distinct poses that have a detector."""
        return 1.0 - sum(int(ring.gaps.sum()) for ring in self.rings) / self.n_poses

    @property
    def gaps(self) -> list[tuple[bool, float, float]]:
        """(mirrored, first turn, last turn) in degrees of each run of poses without a detector, both ends included.

        The last is below the first if the run passes 0.
        """
        return [
            (ring is self.mirrored, first * ring.step, (first + length - 1) % len(ring.counts) * ring.step)
            for ring in self.rings
            for first, length in ring.runs
        ]


def read_coverage(covered_G: BoolArray, poses: IntArray, group: PlanarGroup, stabilizer: BoolArray) -> Coverage:
    """Returns the coverage of a family whose reference has stabilizer H (bool [G]).

    `covered_G`: which transforms h of the reference's shape have a detector (`Families.covered`). `poses` int64
    [members]: those of the members. Equivalent poses hH count as one, which has a detector if any of them has one.
    """
    members = np.bincount(poses, minlength=group.order)
    rings = [
        DialRing(members[coset].sum(1), np.asarray(~covered_G[coset].any(1)), 360.0 / group.n)
        for coset in pose_rings(group, stabilizer.tobytes())
    ]
    return Coverage(rings[0], rings[1] if len(rings) > 1 else None)
