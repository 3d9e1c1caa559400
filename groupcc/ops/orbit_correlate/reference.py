"""orbit_correlate by its parts: maps [B, S, H, W, D], points [G, P, 2], W [L, G, D] → z [B·P, L, G], or its maximum."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops.group_correlate import group_correlate
from groupcc.ops.group_correlate_max import group_correlate_max
from groupcc.ops.orbit_gather import orbit_gather

__all__ = ["Args", "orbit_correlate_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.orbit_correlate`, or if there is a bias of `groupcc.ops.orbit_correlate_max`."""

    maps_BSHWD: torch.Tensor
    points_GP2: torch.Tensor
    W_LGD: torch.Tensor
    b_L: torch.Tensor | None
    group: Group
    interpolation: str


def orbit_correlate_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor | None]:
    """z and None, or if there is a bias values and poses: see `groupcc.ops.orbit_correlate`.

    The orbits exist here, [B·P, G, D], by whatever backend is in force.
    """
    maps, points, W, b, group, interpolation = args
    acts = orbit_gather(maps, points, interpolation)
    return (group_correlate(acts, W, group), None) if b is None else group_correlate_max(acts, W, b, group)
