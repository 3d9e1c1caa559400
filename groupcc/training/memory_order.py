"""Tensors seen in the order in which they lie in memory: the fused optimizer copies what is not contiguous."""

from __future__ import annotations

import torch

__all__ = ["from_memory_order", "in_memory_order"]


def in_memory_order(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A view of `tensor` with its axes as those of `like` lie in memory, the outermost first."""
    return tensor.permute(_order(like))


def from_memory_order(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The inverse: a view of `tensor` with its axes as `like` has them."""
    order = _order(like)
    return tensor.permute([order.index(axis) for axis in range(len(order))])


def _order(like: torch.Tensor) -> list[int]:
    # An axis of length 1 may have any stride; it goes first.
    stride = [s if n > 1 else like.numel() + 1 for n, s in zip(like.shape, like.stride(), strict=True)]
    return sorted(range(like.dim()), key=lambda axis: -stride[axis])
