"""The matrices of a group's Fourier transform as tensors, all irreps in one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.groups.transform import fourier_blocks

__all__ = ["LEAST_SAVING", "Plan", "by_size", "coefficient_counts", "plan_of", "saved_by_fourier", "saves_too_little"]

LEAST_SAVING = 3.0
"""Below this many times fewer multiplications the transforms cost about what the products save."""


class Plan(NamedTuple):
    """Rows of `left` [ΣBdd, G] are (b, i, m), of `right` [ΣBcd, G] (b, j, m), of `inverse` [ΣBdc, G] (b, i, j), the
    irreps of one size after those of another, see `FourierBlock`; `sizes` holds each size's (B, d, c). `left` and
    `right` are divided by √|G|, `inverse` multiplied by |G|: coefficients are then as large as what they are of, and
    products as z, so that float16 holds them.
    """

    left: torch.Tensor
    right: torch.Tensor
    inverse: torch.Tensor
    sizes: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=32)
def plan_of(group: Group, dtype: torch.dtype, device: torch.device) -> Plan:
    """The group's matrices, made in float64 and rounded to `dtype`."""
    blocks, G = fourier_blocks(group), group.order

    def rows(matrices: list[torch.Tensor], scale: float) -> torch.Tensor:
        return torch.cat([scale * matrix.flatten(0, 2) for matrix in matrices]).to(device, dtype)

    with torch.inference_mode(False):  # kept, and autograd saves no tensor of inference
        return Plan(
            rows([torch.from_numpy(block.left) for block in blocks], G**-0.5),
            rows([torch.from_numpy(block.right).transpose(1, 2) for block in blocks], G**-0.5),
            rows([torch.from_numpy(block.inverse) for block in blocks], G),
            tuple((block.right.shape[0], block.right.shape[1], block.right.shape[2]) for block in blocks),
        )


def saved_by_fourier(group: Group) -> float:
    """How many times fewer multiplications the products of the irreps take than the direct sum, transforms left out."""
    sizes = ((len(block.right), *block.right.shape[1:3]) for block in fourier_blocks(group))
    return group.order**2 / sum(B * d * d * c for B, d, c in sizes)


def saves_too_little(group: Group) -> str | None:
    """Why the direct sum costs less for this group, or None."""
    return f"the transform saves too little for {group}" if saved_by_fourier(group) < LEAST_SAVING else None


def coefficient_counts(group: Group) -> tuple[int, int]:
    """Rows of `Plan.left` and `Plan.right`: coefficients of a channel of acts and of W."""
    blocks = fourier_blocks(group)
    return sum(b.left[..., 0].size for b in blocks), sum(b.right[..., 0].size for b in blocks)


def by_size(
    sizes: tuple[tuple[int, int, int], ...],
    N: int,
    L: int,
    D: int,
    acts: torch.Tensor,
    W: torch.Tensor,
    products: torch.Tensor,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """For the irreps of each size, acts [B, d·N, d·D], W [B, c·L, d·D] and products [B, d·N, c·L], out of flat ones."""
    a = w = p = 0
    for B, d, c in sizes:
        n_acts, n_W, n_products = B * d * d * N * D, B * c * d * L * D, B * d * c * N * L
        yield (
            acts[a : a + n_acts].view(B, d * N, d * D),
            W[w : w + n_W].view(B, c * L, d * D),
            products[p : p + n_products].view(B, d * N, c * L),
        )
        a, w, p = a + n_acts, w + n_W, p + n_products
