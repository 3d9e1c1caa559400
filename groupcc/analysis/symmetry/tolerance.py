"""How far below 1 the autocorrelation at an element may be if the element is to count as a symmetry."""

from __future__ import annotations

import torch

from groupcc.analysis.symmetry.stabilizers import type_scores
from groupcc.groups import PlanarGroup

__all__ = ["TOLERANCE_BOUNDS", "calibrate_tolerance", "deficits", "tolerance_bounds"]

TOLERANCE_BOUNDS = (0.1, 0.2)
"""Where `calibrate_tolerance` looks if latents were learned well."""

HIGHEST = 0.4
"""No tolerance is larger."""

BANDWIDTH = 0.02

FALLEN = 0.25
"""A mode ends where the density has fallen to this share of its height."""


def calibrate_tolerance(C_LG: torch.Tensor, group: PlanarGroup) -> float:
    """Returns the tolerance within `tolerance_bounds` on which the fewest decisions about this dictionary depend.

    What a tolerance t means: under a mirror or a half turn h, (1 − C(h))/2 is the share of a latent's modulated power
    that is odd under h. So t = 0.2 lets a tenth of the power be odd.

    Between the bounds the dictionary decides. The deficits 1 − score of every latent and every type of subgroup
    (`type_scores`) have a density, smoothed by a Gaussian of σ = 0.02. The tolerance is where it is lowest: in the gap
    between symmetric and asymmetric latents, if there is one. On ties, to 1e-9 relative, it is the one nearest to the
    middle. It is 0.15 if there is nothing to measure (no latents, the trivial group). `C_LG` [L, G] of live latents.
    Deterministic.
    """
    low, high = tolerance_bounds(C_LG, group)
    middle = round(0.5 * (low + high), 9)
    grid = torch.linspace(low, high, 41, dtype=torch.float64)
    density = _density(deficits(C_LG, group), grid)
    lowest = (density <= density.min() + 1e-9 * max(1, len(C_LG))).nonzero()[:, 0]
    return round(float(grid[lowest[(grid[lowest] - middle).abs().argmin()]]), 4)


def tolerance_bounds(C_LG: torch.Tensor, group: PlanarGroup) -> tuple[float, float]:
    """Returns between which tolerances a verdict on this dictionary must not depend on the tolerance.

    They are `TOLERANCE_BOUNDS`, moved up until none falls below the mode of the symmetric latents. Let a latent have
    cosine c with its true direction, and an error unlike the latent. Then C(h) ≈ c² at the elements of its stabilizer:
    if latents are learned at c = 0.92, the deficits of symmetric ones pile up at 0.15, and a tolerance of 0.1 would
    reject them all. The lowest mode of the deficits' density is where the symmetric latents are. It ends where the
    density has fallen to `FALLEN` of its height, and the lower bound is there or above. The mode is looked for below
    `HIGHEST` − 0.1, and the upper bound is at most `HIGHEST`.
    """
    low, high = TOLERANCE_BOUNDS
    measured = deficits(C_LG, group)
    grid = torch.linspace(0.0, HIGHEST, 161, dtype=torch.float64)
    density = _density(measured, grid)
    inner = density[1:-1]
    modes = ((inner >= density[:-2]) & (inner > density[2:])).nonzero()[:, 0] + 1
    if density[0] > density[1]:
        modes = torch.cat([torch.zeros(1, dtype=torch.int64), modes])
    modes = modes[(grid[modes] <= HIGHEST - (high - low)) & (density[modes] > 0)]
    if len(modes) == 0:
        return TOLERANCE_BOUNDS
    mode = int(modes[0])
    fallen = (density[mode:] <= FALLEN * density[mode]).nonzero()[:, 0]
    # A mode without an end is no mode of its own: what lies there is a part of something wider.
    end = float(grid[mode + int(fallen[0])]) if len(fallen) else 0.0
    shift = min(max(0.0, end - low), HIGHEST - high)
    return round(low + shift, 9), round(high + shift, 9)


def deficits(C_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Returns 1 − score of every latent and every type of subgroup but the trivial one, float64 [any]."""
    return 1.0 - type_scores(C_LG, group).values[1:].flatten()


def _density(measured: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Returns the smoothed density of the deficits at the points of the grid."""
    # A histogram far finer than the bandwidth keeps the cost independent of the number of latents.
    counts = torch.histc(measured.clamp(0.0, 0.6), bins=1200, min=0.0, max=0.6)
    counts[-1] = 0.0  # what was clamped
    centres = (torch.arange(1200, dtype=torch.float64) + 0.5) * 0.0005
    return torch.exp(-0.5 * ((grid[:, None] - centres) / BANDWIDTH) ** 2) @ counts
