"""Near misses: the larger subgroups that a latent almost has, and the element at which each fails."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from groupcc.analysis.symmetry.interpolation import UPSAMPLING, coset_values, interpolate
from groupcc.analysis.symmetry.modulated import modulated
from groupcc.analysis.symmetry.stabilizers import Stabilizer, TypeScores, subgroup_types, type_scores
from groupcc.groups import PlanarGroup
from groupcc.groups.planar import format_degrees

__all__ = ["NEAR", "Limit", "NearMiss", "limits", "near_misses"]

NEAR = 0.1
"""A larger subgroup is a near miss if its score is below the limit 1 − tolerance by at most this."""

LISTED = 3
"""Near misses listed for one latent, at most."""


@dataclass(frozen=True)
class Limit:
    """The `element` of a subgroup, in words, at which C is smallest, and C there, `value`. `exact`: whether the element
    maps the pixel lattice onto itself, so that no interpolation enters."""

    element: str
    value: float
    exact: bool


@dataclass(frozen=True)
class NearMiss:
    """A larger subgroup that a latent almost has: its type, and its `Limit`. In words "almost D2: 180° turn 0.87"."""

    name: str
    limit: Limit

    def __str__(self) -> str:
        return f"almost {self.name}: {self.limit.element} {self.limit.value:.2f}"


def near_misses(
    C_LG: torch.Tensor, group: PlanarGroup, stabilizers: list[Stabilizer], tolerance: float
) -> list[list[NearMiss]]:
    """Returns for each latent the types of larger subgroups that contain its own and have a score (`subgroup_scores`)
    of at least 1 − tolerance − `NEAR`: the highest score first, at most `LISTED`, none for a dead latent."""
    scored = type_scores(C_LG, group)
    values = scored.values.T.numpy()
    types = [(int(name[1:]), name[0] == "D") for name in subgroup_types(group)]
    misses = []
    for latent, stabilizer in enumerate(stabilizers):
        larger = []
        if stabilizer.kind != "dead":
            own = int(stabilizer.name[1:]), stabilizer.name[0] == "D"
            larger = [
                index
                for index, (m, mirrored) in enumerate(types)
                if (m, mirrored) != own and m % own[0] == 0 and mirrored >= own[1]
                if values[latent, index] >= 1.0 - tolerance - NEAR
            ]
        larger.sort(key=lambda index: -values[latent, index])
        named = [subgroup_types(group)[index] for index in larger[:LISTED]]
        misses.append([NearMiss(name, limits(C_LG[latent], group, scored, latent, name)) for name in named])
    return misses


def limits(C_G: torch.Tensor, group: PlanarGroup, scored: TypeScores, latent: int, name: str) -> Limit:
    """Returns where C of one latent is smallest over its best subgroup of type `name`, mirrors at interpolated axes: C
    of its modulated part, and for the whole group C itself."""
    m, n, scores = int(name[1:]), group.n, scored.modulated
    C_1G = C_G.double().cpu()[None]
    rotations, reflections = coset_values(C_1G if name == subgroup_types(group)[-1] else modulated(C_1G)[0], group)
    turns = np.arange(1, m) * (n // m)
    turns = turns[2 * turns <= n]  # C(h) = C(h⁻¹)
    elements = [
        Limit(f"{format_degrees(360 * r / n)} turn", float(rotations[0, r]), bool(group.exact[r])) for r in turns
    ]
    if name[0] == "D" and reflections is not None and scores.mirror_step is not None:
        step = float(scores.mirror_step[scores.orders.index(m), latent])
        curve = interpolate(reflections, UPSAMPLING)[0]
        for first in range(m):
            at = step + first * n / m
            axis = (90.0 + 180.0 * at / n) % 180.0
            value = float(curve[round(at * UPSAMPLING) % len(curve)])
            exact = abs(4 * at / n - round(4 * at / n)) * n / 4 < 0.5 / UPSAMPLING
            elements.append(Limit(f"mirror at {format_degrees(round(axis, 1) % 180.0)}", value, exact))
    return min(elements, key=lambda element: element.value, default=Limit("identity", 1.0, True))
