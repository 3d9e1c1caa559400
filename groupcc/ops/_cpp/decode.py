"""What the launchers of csrc/sparse_decode.cpp and csrc/decode_loss.cpp share: acts as summed, addresses."""

from __future__ import annotations

import torch

__all__ = ["address", "widened"]


def widened(acts_NK: torch.Tensor) -> torch.Tensor:
    """Contiguous, in the type that the kernels sum in."""
    return acts_NK.to(torch.promote_types(acts_NK.dtype, torch.float32)).contiguous()


def address(tensor: torch.Tensor | None) -> int:
    """Where the tensor's elements lie, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()
