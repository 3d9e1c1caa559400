"""How far below 1 the autocorrelation at an element may be if the element is to count as a symmetry."""

from __future__ import annotations

import torch

from groupcc.analysis.symmetry.stabilizers import subgroup_scores
from groupcc.groups import PlanarGroup

__all__ = ["TOLERANCE_BOUNDS", "calibrate_tolerance", "deficits"]

TOLERANCE_BOUNDS = (0.1, 0.2)
"""Where `calibrate_tolerance` looks."""

BANDWIDTH = 0.02


def calibrate_tolerance(C_LG: torch.Tensor, group: PlanarGroup) -> float:
    """Returns the tolerance in [0.1, 0.2] on which the fewest decisions about this dictionary depend.

    What a tolerance t means: under a mirror or a half turn h, (1 − C(h))/2 is the share of a latent's power that is odd
    under h. So t = 0.2 lets a tenth of the power be odd.

    The bounds. Let a latent have cosine c with its true direction, and an error unlike the latent. Then C(h) ≈ c² at
    the elements of its stabilizer, and C(h) ≥ 2c² − 1. An atom is commonly counted as recovered from c = 0.95 on, so
    C ≥ 0.805: t = 0.2 accepts all recovered atoms, and a larger one would accept what was not learned. A tolerance
    below 0.1 would reject shapes that are symmetric to the eye: on a trained net under D_16 a line reads 0.91 at 180°.

    Between the bounds the dictionary decides. The deficits 1 − score of every latent and every type of subgroup
    (`subgroup_scores`) have a density, smoothed by a Gaussian of σ = 0.02. The tolerance is where it is lowest: in the
    gap between symmetric and asymmetric latents, if there is one. On ties, to 1e-9 relative, it is the one nearest
    0.15. It is 0.15 too if there is nothing to measure (no latents, the trivial group). `C_LG` [L, G] of live latents.
    Deterministic.
    """
    low, high = TOLERANCE_BOUNDS
    middle = round(0.5 * (low + high), 9)
    measured = deficits(C_LG, group)
    if measured.numel() == 0:
        return middle
    grid = torch.linspace(low, high, 41, dtype=torch.float64)
    # A histogram far finer than the bandwidth keeps the cost independent of the number of latents.
    counts = torch.histc(measured.clamp(0.0, 0.5), bins=1000, min=0.0, max=0.5)
    centres = (torch.arange(1000, dtype=torch.float64) + 0.5) * 0.0005
    density = torch.exp(-0.5 * ((grid[:, None] - centres) / BANDWIDTH) ** 2) @ counts
    lowest = (density <= density.min() + 1e-9 * measured.numel()).nonzero()[:, 0]
    return round(float(grid[lowest[(grid[lowest] - middle).abs().argmin()]]), 4)


def deficits(C_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Returns 1 − score of every latent and every type of subgroup but the trivial one, float64 [any]."""
    scores = subgroup_scores(C_LG, group)
    parts = [scores.rotation[1:]] if scores.dihedral is None else [scores.rotation[1:], scores.dihedral]
    return 1.0 - torch.cat(parts).flatten()
