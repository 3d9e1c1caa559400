"""group_correlate by the Fourier transform on the group: acts [N, G, D], W [L, G, D] → z [N, L, G].

ẑ(ρ) = â(ρ)ᵀ ŵ(ρ): one product for each irrep, of Σ_ρ d²c·N·L·D multiplications in all where the direct sum has
|G|²·N·L·D (D32: 124 for 4096). The transforms are products with matrices of |G| columns.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.groups.fourier import fourier_blocks

__all__ = ["group_correlate_fourier", "saved_by_fourier"]


class _Plan(NamedTuple):
    """Matrices of one group: rows of `left` [ΣBdd, G] as (b, i, m), of `right` [ΣBcd, G] as (b, j, m), of `inverse`
    [ΣBdc, G] as (b, i, j), the irreps of all sizes one after another; `sizes` holds (B, d, c) of each size."""

    left: torch.Tensor
    right: torch.Tensor
    inverse: torch.Tensor
    sizes: list[tuple[int, int, int]]


@lru_cache(maxsize=32)
def _plan(group: Group, dtype: torch.dtype, device: torch.device) -> _Plan:
    blocks = fourier_blocks(group)

    def rows(matrices: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([matrix.flatten(0, 2) for matrix in matrices]).to(device, dtype)

    return _Plan(
        rows([torch.from_numpy(block.left) for block in blocks]),
        rows([torch.from_numpy(block.right).transpose(1, 2) for block in blocks]),
        rows([torch.from_numpy(block.inverse) for block in blocks]),
        [(len(block.right), *block.right.shape[1:3]) for block in blocks],
    )


def saved_by_fourier(group: Group) -> float:
    """How many times fewer multiplications the products of the irreps take than the direct sum, transforms left out."""
    left = [(len(block.left), *block.inverse.shape[1:3]) for block in fourier_blocks(group)]
    return group.order**2 / sum(B * d * d * c for B, d, c in left)


def group_correlate_fourier(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """See `groupcc.ops.group_correlate`."""
    plan = _plan(group, acts_NGD.dtype, acts_NGD.device)
    (N, _, D), L = acts_NGD.shape, W_LGD.shape[0]
    acts, W = plan.left @ acts_NGD, plan.right @ W_LGD
    spectra, a, w = [], 0, 0
    for B, d, c in plan.sizes:
        acts_BiNK = acts[:, a : a + B * d * d].view(N, B, d, d * D).permute(1, 2, 0, 3)
        W_BLK = W[:, w : w + B * c * d].view(L, B, c, d * D).permute(1, 0, 2, 3).reshape(B, L * c, d * D)
        product = acts_BiNK @ W_BLK.transpose(1, 2)[:, None]
        spectra.append(product.view(B, d, N, L, c).permute(2, 3, 0, 1, 4).reshape(N, L, B * d * c))
        a, w = a + B * d * d, w + B * c * d
    return torch.cat(spectra, dim=2) @ plan.inverse
