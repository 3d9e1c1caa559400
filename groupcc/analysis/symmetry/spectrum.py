"""Power of a latent in each irreducible representation."""

from __future__ import annotations

import numpy as np
import torch

from groupcc.groups import Group

__all__ = ["spectrum"]


def spectrum(C_LG: torch.Tensor, group: Group) -> torch.Tensor:
    """Returns the share of each latent's power in each real irrep: C [L, G] → [L, irreps], rows sum to 1.

    With x̂(ρ) = Σ_g x_g ρ(g) the power in ρ is w_ρ ‖x̂(ρ)‖² (w_ρ: `Irrep.power_weight`), and
    ‖x̂(ρ)‖² = ‖x‖² Σ_h C(h) χ_ρ(h) with the character χ_ρ. So the autocorrelation suffices, without a transform of the
    decoder. The first column is the trivial irrep: the part that is the same in every decoder block. A latent of zeros
    has a row of zeros.
    """
    weights = np.stack([irrep.character * irrep.power_weight(group.order) for irrep in group.irreps()], axis=1)
    shares = (C_LG.double() @ torch.from_numpy(weights).to(C_LG.device)).clamp_min(0.0)
    total = shares.sum(1, keepdim=True)
    return torch.where(total > 0, shares / torch.where(total > 0, total, torch.ones_like(total)), 0.0).to(C_LG.dtype)
