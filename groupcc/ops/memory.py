"""Memory for large tensors on the CPU."""

from __future__ import annotations

import math

import torch

__all__ = ["recycled", "take_scaled"]


def recycled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised contiguous CPU tensor, with the extension in memory that is kept for the next of its size.

    A fresh 60 MB cost more in page faults than writing them does (csrc/memory.cpp).
    """
    try:
        from groupcc.ops._cpp.launch import empty
    except ImportError:
        return torch.empty(shape, dtype=dtype, device="cpu")
    return empty(shape, dtype)


def take_scaled(x: torch.Tensor, indices: torch.Tensor, factor: float) -> torch.Tensor:
    """x[indices] · factor, fp32 on the CPU, in memory of its own; `indices` int64 [n]. IndexError for others.

    With the extension, and x contiguous, in one pass over memory in place of two.
    """
    try:
        from groupcc.ops._cpp.launch import _C, empty, threads
    except ImportError:
        return x.index_select(0, indices).mul_(factor)
    out = empty((len(indices), *x.shape[1:]), torch.float32)
    # What is not contiguous is not made so: that would copy all of x for a few examples.
    if not x.is_contiguous():
        return torch.index_select(x, 0, indices, out=out).mul_(factor)
    rows, width = len(indices), math.prod(x.shape[1:])
    _C.take_scaled(x.view(len(x), width), indices.contiguous(), out.view(rows, width), factor, threads())
    return out
