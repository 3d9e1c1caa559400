"""What the launchers of the C++ kernels share: memory, layout and dtype of tensors, why arguments are not supported."""

from __future__ import annotations

import math

import torch

try:
    from groupcc import _C
except ImportError as error:
    raise ImportError(
        f"the extension groupcc._C cannot be loaded: {error}; where it was not built, install again with a C++ compiler"
    ) from error


_DTYPES: tuple[torch.dtype, ...] = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_CPU = torch.device("cpu")
_BLOCK_FROM = 1 << 20  # below this the allocator reuses its own memory

threads = torch.get_num_threads
"""How many threads a kernel may use: PyTorch's setting."""


def why_not(args: tuple[object, ...]) -> str | None:
    """Why the tensors among `args` don't run in C++, or None: all must lie on the CPU, floating ones share a dtype."""
    dtypes = _DTYPES
    for arg in args:
        if not isinstance(arg, torch.Tensor):
            continue
        if not arg.is_cpu:
            return f"the C++ kernels take CPU tensors, got one on {arg.device}"
        if arg.is_floating_point():
            if arg.dtype not in dtypes:
                return f"the C++ kernels take float32, float64, bfloat16 or float16, all the same, got {arg.dtype}"
            dtypes = (arg.dtype,)
    return None


def widened(tensor: torch.Tensor) -> torch.Tensor:
    """Contiguous, in the type that the kernels sum in."""
    wide = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    return tensor.to(wide).contiguous()


def contiguous(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The tensor with its elements in order, as the kernels read them; None for None."""
    return None if tensor is None else tensor.contiguous()


def empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised contiguous CPU tensor; large ones in memory that is kept for the next of that size.

    Fresh memory of 100 MB costs more time in page faults than writing it does, and training makes gradients of the
    same sizes at every step (csrc/memory.cpp).
    """
    n = math.prod(shape)
    nbytes = n * dtype.itemsize
    if nbytes < _BLOCK_FROM:
        return torch.empty(shape, dtype=dtype, device=_CPU)  # whatever torch.set_default_device says
    return torch.frombuffer(_C.Block(nbytes), dtype=dtype, count=n).view(shape)
