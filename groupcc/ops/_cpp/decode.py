"""What the launchers of kernels that decode share."""

from __future__ import annotations

import torch

__all__ = ["contiguous", "widened"]


def widened(acts_NK: torch.Tensor) -> torch.Tensor:
    """Contiguous, in the type that the kernels sum in."""
    return acts_NK.to(torch.promote_types(acts_NK.dtype, torch.float32)).contiguous()


def contiguous(tensor: torch.Tensor | None) -> torch.Tensor | None:
    """The tensor with its elements in order, as the kernels read them; None for None."""
    return None if tensor is None else tensor.contiguous()
