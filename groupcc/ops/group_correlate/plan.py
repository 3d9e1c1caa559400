"""The matrices of a group's Fourier transform as tensors, all irreps in one."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.groups.fourier import fourier_blocks

__all__ = ["LEAST_SAVING", "Plan", "plan_of", "saved_by_fourier"]

LEAST_SAVING = 3.0
"""Below this many times fewer multiplications the transforms cost about what the products save."""


class Plan(NamedTuple):
    """Rows of `left` [ΣBdd, G] are (b, i, m), of `right` [ΣBcd, G] (b, j, m), of `inverse` [ΣBdc, G] (b, i, j), the
    irreps of one size after those of another, see `FourierBlock`; `sizes` holds each size's (B, d, c)."""

    left: torch.Tensor
    right: torch.Tensor
    inverse: torch.Tensor
    sizes: tuple[tuple[int, int, int], ...]


@lru_cache(maxsize=32)
def plan_of(group: Group, dtype: torch.dtype, device: torch.device) -> Plan:
    """The group's matrices, made in float64 and rounded to `dtype`."""
    blocks = fourier_blocks(group)

    def rows(matrices: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([matrix.flatten(0, 2) for matrix in matrices]).to(device, dtype)

    with torch.inference_mode(False):  # kept, and autograd saves no tensor of inference
        return Plan(
            rows([torch.from_numpy(block.left) for block in blocks]),
            rows([torch.from_numpy(block.right).transpose(1, 2) for block in blocks]),
            rows([torch.from_numpy(block.inverse) for block in blocks]),
            tuple((block.right.shape[0], block.right.shape[1], block.right.shape[2]) for block in blocks),
        )


def saved_by_fourier(group: Group) -> float:
    """How many times fewer multiplications the products of the irreps take than the direct sum, transforms left out."""
    sizes = ((len(block.right), *block.right.shape[1:3]) for block in fourier_blocks(group))
    return group.order**2 / sum(B * d * d * c for B, d, c in sizes)
