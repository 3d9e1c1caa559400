"""The Fourier transform on a group, as matrices between functions on it and the coefficients of its real irreps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from groupcc.groups.algebra import Group
from groupcc.groups.arrays import FloatArray

__all__ = ["FourierBlock", "fourier_blocks"]


@dataclass(frozen=True, eq=False)
class FourierBlock:
    """The B irreps of one dimension d, of which c columns are kept; all matrices float64.

    Let x̂(ρ) = Σ_g x_g ρ(g). The correlation z[h] = Σ_g ⟨w[gh], a_g⟩ has ẑ(ρ) = â(ρ)ᵀ ŵ(ρ). It comes back as
    z[h] = Σ_ρ (d/(m|G|)) tr(ẑ(ρ) ρ(h)ᵀ), m the irrep's `endomorphism_dim`. A planar rotation (d = m = 2, in C_n) is
    known by its first column alone, so c = 1 and the column counts twice. Otherwise c = d.

    Example D_3: two irreps of dimension 1 and one of dimension 2, so two blocks with (B, d, c) = (2, 1, 1) and
    (1, 2, 2). The products take 2·1 + 1·8 = 10 multiplications, and the direct sum 36.

    - `left` [B, d, d, G]: left[b, i, m, g] = ρ_b(g)[m, i], what multiplies a.
    - `right` [B, d, c, G]: right[b, m, j, g] = ρ_b(g)[m, j], what multiplies w.
    - `inverse` [B, d, c, G]: inverse[b, i, j, h] = weight · ρ_b(h)[i, j].
    """

    left: FloatArray
    right: FloatArray
    inverse: FloatArray


@lru_cache(maxsize=64)
def fourier_blocks(group: Group) -> tuple[FourierBlock, ...]:
    """The group's irreps by rising dimension, those of one size in one block."""
    sizes: dict[tuple[int, int], list[tuple[FloatArray, float]]] = {}
    for irrep in group.irreps():
        d, m = irrep.dim, irrep.endomorphism_dim
        columns = 1 if d == m == 2 else d
        weight = d / (m * group.order) * (d / columns)
        sizes.setdefault((d, columns), []).append((irrep.matrices, weight))
    blocks = []
    for (_, columns), members in sorted(sizes.items()):
        matrices = np.stack([matrices for matrices, _ in members]).transpose(0, 2, 3, 1)  # [B, row, column, G]
        weights = np.array([weight for _, weight in members])[:, None, None, None]
        kept = matrices[:, :, :columns]
        blocks.append(FourierBlock(matrices.transpose(0, 2, 1, 3).copy(), kept.copy(), weights * kept))
    return tuple(blocks)
