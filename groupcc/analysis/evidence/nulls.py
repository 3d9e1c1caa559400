"""Nulls: the autocorrelation that chance gives without a symmetry, and what interpolation alone takes from C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from groupcc.analysis.symmetry.interpolation import coset_values
from groupcc.analysis.symmetry.modulated import without_noise
from groupcc.analysis.symmetry.stabilizers import Stabilizer, subgroup_types, type_scores
from groupcc.data import as_orbits
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import autocorrelation

__all__ = ["Null", "chance_scores", "control_error", "interpolation_error", "measure_null"]

CHANCE = 0.01
"""Share of latents made of unrelated blocks that score above `Null.chance`."""

SURROGATES = 1000
"""Latents that are made of unrelated blocks."""

FEWEST = 10
"""Live latents that are needed to take unrelated blocks from."""

CONTROLS = 1024
"""Orbits of an isotropic control that are read, at most."""


@dataclass(frozen=True, eq=False)
class Null:
    """What interpolation and chance do by themselves: see `measure_null`.

    - `interpolation`: C lost to interpolation, measured on the dictionary itself (`interpolation_error`). `control`:
      the same on an isotropic control (`control_error`). None if there is nothing to measure it on.
    - `chance` float64 [types]: the score that each type of subgroup (`subgroup_types`) has by chance (`chance_scores`);
      −1 if it was not measured.
    """

    interpolation: float | None
    control: float | None
    chance: torch.Tensor

    @property
    def error(self) -> float:
        """The larger of `interpolation` and `control`; 0 if neither is known."""
        return max(self.interpolation or 0.0, self.control or 0.0)


def measure_null(
    W_LGD: torch.Tensor, C_LG: torch.Tensor, group: PlanarGroup, stabilizers: list[Stabilizer], control: Any = None
) -> Null:
    """Returns the null of a dictionary. `control`: orbits of isotropic images, see `control_error`."""
    alive = torch.tensor([stabilizer.kind != "dead" for stabilizer in stabilizers], dtype=torch.bool)
    invariant = torch.tensor([s.kind == "invariant" and not s.broken for s in stabilizers], dtype=torch.bool)
    return Null(
        interpolation_error(C_LG[invariant], group),
        None if control is None else control_error(control, group, W_LGD.shape[2]),
        chance_scores(W_LGD[alive.to(W_LGD.device)], group),
    )


def interpolation_error(C_LG: torch.Tensor, group: PlanarGroup) -> float | None:
    """Returns how much lower C is at elements that interpolate than at elements that are exact, over invariant latents.

    An invariant latent has one C for all elements but the identity, whatever its noise. Multiples of 90 degrees map the
    pixel lattice onto itself and the other elements interpolate, so a difference is interpolation's. It is the median
    over the latents of mean C at the exact elements less mean C at the others, cosets apart, at least 0. None without
    latents, and if all elements of the group are exact.
    """
    exact, others = torch.from_numpy(group.exact.copy()), torch.from_numpy(~group.exact)
    differences = []
    for coset, start in zip(coset_values(C_LG.double().cpu(), group), (0, group.n), strict=True):
        if coset is None:
            continue
        here = exact[start : start + group.n].clone()
        here[0] &= start > 0  # C(e) = 1 whatever the noise
        away = others[start : start + group.n]
        if here.any() and away.any():
            differences.append(coset[:, here].mean(1) - coset[:, away].mean(1))
    if not differences or len(C_LG) == 0:
        return None
    return max(0.0, float(torch.stack(differences).mean(0).median()))


def control_error(control: Any, group: PlanarGroup, d_in: int) -> float:
    """Returns the largest 1 − C of orbits whose blocks would be equal but for interpolation: 95 % quantile over orbits.

    `control`: a store or a tensor [M, G, D] of images that look the same at every angle, such as rings, harvested at
    the position of their centre. The first `CONTROLS` are read. C is that of the orbit itself.
    """
    source = as_orbits(control, group.order, d_in)
    orbits = source.take(torch.arange(min(len(source), CONTROLS)))
    deficits = 1.0 - autocorrelation(orbits.float(), group).double().amin(1)
    return float(deficits.quantile(0.95).clamp_min(0.0))


def chance_scores(W_LGD: torch.Tensor, group: PlanarGroup, seed: int = 0) -> torch.Tensor:
    """Returns the score of each type of subgroup that a share `CHANCE` of unrelated latents exceeds, float64 [types].

    `SURROGATES` latents are made of blocks drawn from all blocks of all latents, each latent scaled to norm 1. They
    have what the dictionary's blocks have in common, and no symmetry. The score 1 of C1 comes first. −1 for fewer than
    `FEWEST` latents. Deterministic in `seed`.
    """
    types = len(subgroup_types(group))
    L, G = len(W_LGD), group.order
    if L < FEWEST:
        return torch.full((types,), -1.0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    norms = torch.linalg.vector_norm(W_LGD.flatten(1), dim=1)
    parts = []
    for count in [100] * (SURROGATES // 100):
        latent, block = (torch.randint(high, (count, G), generator=generator).to(W_LGD.device) for high in (L, G))
        made = W_LGD[latent, block] / norms[latent][:, :, None]
        parts.append(without_noise(autocorrelation(made, group), group))
    return type_scores(torch.cat(parts), group).values.quantile(1.0 - CHANCE, dim=1)
