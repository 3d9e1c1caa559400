"""Parts of a latent told apart by its autocorrelation: what all transforms share, what differs, and noise."""

from __future__ import annotations

import numpy as np
import torch

from groupcc.analysis.symmetry.spectrum import spectrum
from groupcc.groups import PlanarGroup

__all__ = ["LARGEST_NOISE", "modulated", "noise_share", "without_noise"]

LARGEST_NOISE = 0.4
"""No more of a latent's power is taken for noise: with more, a latent's cosine with its shape is below 0.77."""


FEWEST_IRREPS = 6
"""With fewer irreps nothing is taken for noise."""


def modulated(C_LG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns C of the modulated parts d − mean_g d_g, fp64 [L, G], and the invariant shares of the power, [L].

    The mean m of a latent's blocks is alike under every transform and orthogonal to the rest d', so ⟨d, R_h d⟩ =
    G‖m‖² + ⟨d', R_h d'⟩. The sum of the second term over h is 0. So the invariant share s = G‖m‖²/‖d‖² is the mean of
    C, and C'(h) = (C(h) − s) / (1 − s). C' is 0 if the latent has no modulated part, and for a latent of zeros.

    Example: C = [1, 0.8, 0.6, 0.8] has s = 0.8 and C' = [1, 0, −1, 0].
    """
    C_LG = C_LG.double().cpu()
    share_L = C_LG.mean(1).clamp(0.0, 1.0)
    left_L1 = (1.0 - share_L)[:, None]
    some = left_L1 > 1e-9
    centred = torch.where(some, (C_LG - share_L[:, None]) / torch.where(some, left_L1, 1.0), 0.0)
    return centred.clamp(-1.0, 1.0), share_L


def noise_share(C_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Returns the share ν of each latent's power that has no preference for any irrep, fp64 [L].

    The error of a learned latent is alike at all frequencies, as white noise is. A shape is not: its highest harmonics
    are weak, and those that its symmetry forbids are 0. White noise has in each irrep a share of power in proportion to
    its dimension, the power of the shape comes on top. So ν is what the third of the irreps with the least power for
    their dimension have, over their share of the dimensions. At most `LARGEST_NOISE`.

    A group of fewer than six irreps, D_4 for instance, has too few to tell noise from a shape without symmetry: ν = 0.

    Example: shares of power 0.5, 0.3, 0.18, 0.01 and 0.01 in irreps of 1, 2, 2, 2 and 1 of 8 dimensions: for its
    dimension the last but one has 0.04, the last one 0.08.
    """
    irreps = group.irreps()
    if len(irreps) < FEWEST_IRREPS:
        return torch.zeros(len(C_LG), dtype=torch.float64)
    expected = np.array([irrep.power_weight(group.order) * irrep.character[0] for irrep in irreps])
    ratio = spectrum(C_LG.double().cpu(), group) / torch.from_numpy(expected)
    least = ratio.sort(1).values[:, : max(1, len(irreps) // 3)]
    return least.mean(1).clamp(0.0, LARGEST_NOISE)


def without_noise(C_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """Returns C of latents less their white noise, in [−1, 1]: C(h) / (1 − ν) for h ≠ e, ν = `noise_share`.

    Noise is alike only to itself. A latent of cosine c with its shape has ν = 1 − c², and C ≈ c² where the shape has 1.
    """
    C_LG = C_LG.double().cpu()
    less = (C_LG / (1.0 - noise_share(C_LG, group))[:, None]).clamp(-1.0, 1.0)
    less[:, group.identity] = C_LG[:, group.identity]
    return less
