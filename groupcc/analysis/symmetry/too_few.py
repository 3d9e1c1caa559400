"""Whether the group has too few rotations to tell if a latent has a mirror between two elements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from groupcc.analysis.symmetry.interpolation import coset_values
from groupcc.analysis.symmetry.modulated import modulated
from groupcc.analysis.symmetry.stabilizers import TypeScores
from groupcc.groups import PlanarGroup

__all__ = ["hidden_power", "mirror_hidden"]


def hidden_power(C_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Returns how far C at a mirror between two elements may be from its interpolation, fp64 [L].

    n rotations show a latent's harmonics up to n/2. Of the last one the phase is unknown: with power p it moves the
    interpolated C by p at most. Higher harmonics are read as lower ones. How much power they have can only be guessed
    from how the spectrum ends: if the last but one has p', and the strongest below it has p'', as much as p'·p'/p'' may
    follow, and p' at most. A harmonic that is read as another one is missing in its own place and wrong in that one, so
    both count twice.

    Example: a curve under D_8 with p = 0.01, p' = 0.06, p'' = 0.5 has 2·(0.01 + 0.007) = 0.03. A three-armed star with
    p = 0, p' = 0.6, p'' = 0.3 has 1.2.
    """
    modulated_LG, _ = modulated(C_LG)
    rotations, reflections = coset_values(modulated_LG, group)
    n = group.n
    if reflections is None or n < 3 or len(C_LG) == 0:  # MKL refuses an empty batch, in some versions
        return torch.zeros(len(C_LG), dtype=torch.float64)
    power = torch.fft.rfft(rotations, dim=1).real.clamp_min(0.0) / n
    power[:, 1 : (n + 1) // 2] *= 2
    power[:, 0] = 0.0  # that of the two cosets' difference, which no rotation moves
    last = power[:, n // 2] if n % 2 == 0 else torch.zeros(len(power), dtype=torch.float64)
    end = (n + 1) // 2 - 1
    before, rest = power[:, end], power[:, :end]
    strongest = rest.amax(1) if end else torch.zeros_like(before)
    follows = before * (before / strongest.clamp_min(1e-12)).clamp_max(1.0)
    return 2.0 * (last + follows)


def mirror_hidden(
    C_LG: torch.Tensor, types: TypeScores, best: npt.NDArray[np.int64], group: PlanarGroup, tolerance: float
) -> torch.Tensor:
    """Returns of which latents nobody can say whether they have a mirror, bool [L].

    `best`: their types. A latent with m rotations has the type C_m or D_m. It is hidden which one if C at the best
    mirrors is within `hidden_power` of the limit 1 − tolerance. If these mirrors are elements, nothing is hidden: C is
    known there. `C_LG`: what the types were read from.
    """
    scores = types.modulated
    if scores.dihedral is None:
        return torch.zeros(len(C_LG), dtype=torch.bool)
    rows = len(scores.orders)
    row = torch.from_numpy(best % rows)[None]
    interpolated = scores.dihedral.gather(0, row)[0]
    limit = 1.0 - tolerance
    doubtful = (interpolated - limit).abs() <= hidden_power(C_LG, group)
    _, reflections = coset_values(modulated(C_LG)[0], group)
    assert reflections is not None
    known = torch.stack([reflections.unflatten(1, (m, -1)).amin(1).amax(1) for m in scores.orders]).gather(0, row)[0]
    invariant = torch.from_numpy(best == len(types.values) - 1)
    return doubtful & (known < limit) & ~invariant
