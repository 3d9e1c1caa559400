"""What the launchers of the C++ kernels share: memory for outputs, why arguments are not supported."""

from __future__ import annotations

import math

import torch

try:
    from groupcc import _C
except ImportError as error:
    raise ImportError(
        f"the extension groupcc._C cannot be loaded: {error}; where it was not built, install again with a C++ compiler"
    ) from error

__all__ = ["empty", "threads", "why_not"]

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_BLOCK_FROM = 1 << 20  # below this the allocator reuses its own memory


def why_not(*tensors: torch.Tensor) -> str | None:
    """Why these tensors don't run in C++, or None: floating ones must share one of _DTYPES, and all lie on the CPU."""
    floating = [tensor for tensor in tensors if tensor.is_floating_point()]
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"the C++ kernels take CPU tensors, got one on {tensor.device}"
    for tensor in floating:
        if tensor.dtype not in _DTYPES or tensor.dtype != floating[0].dtype:
            return f"the C++ kernels take float32, float64, bfloat16 or float16, all the same, got {tensor.dtype}"
    return None


def threads() -> int:
    """How many threads a kernel may use: PyTorch's setting."""
    return torch.get_num_threads()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised contiguous CPU tensor; large ones in memory that is kept for the next of that size.

    Fresh memory of 100 MB costs more time in page faults than writing it does, and training makes gradients of the
    same sizes at every step (csrc/memory.cpp).
    """
    n = math.prod(shape)
    nbytes = n * dtype.itemsize
    if nbytes < _BLOCK_FROM:
        return torch.empty(shape, dtype=dtype, device="cpu")  # whatever torch.set_default_device says
    return torch.frombuffer(_C.Block(nbytes), dtype=dtype, count=n).view(shape)
