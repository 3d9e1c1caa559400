"""The auxiliary loss: dead latents explain what the others leave."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from groupcc.models.latents import SparseLatents

__all__ = ["aux_loss"]


def aux_loss(
    residual_NGD: Tensor,
    power: Tensor,
    dead_L: Tensor,
    aux_k: int,
    strongest: Callable[[Tensor, int], SparseLatents],
    error: Callable[[SparseLatents, Tensor], Tensor],
) -> Tensor:
    """Returns ‖e − ê‖² / ‖e‖², a scalar, where ê decodes the aux_k strongest dead latents and e = −residual is held
    fixed.

    `power` is ‖e‖². `dead_L` bool: which latents are dead. `strongest(latents, k)`: the k largest of these in each
    example, with gradients. `error(latents, target)`: Σ (â − target)², â their reconstruction without bias.

    0 if nothing is dead or the residual is 0. Gao et al. 2024 (arXiv:2406.04093), appendix A.2.
    """
    dead = dead_L.nonzero().flatten()
    k = min(aux_k, dead.numel())
    if k == 0:
        return power.new_zeros(())
    left = error(strongest(dead, k), -residual_NGD.detach())
    power = power.detach()
    return torch.where(power == 0, 0, left / power.clamp_min(torch.finfo(power.dtype).tiny))
