"""Argument checks that several ops share."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error

__all__ = ["check_selection"]


def check_selection(pre_acts: torch.Tensor, k: int) -> None:
    """`pre_acts` is floating-point [N, L] and 1 ≤ k ≤ L, or ArgumentError."""
    if pre_acts.dim() != 2 or not pre_acts.is_floating_point():
        raise argument_error(
            "pre_acts",
            expected="a floating-point tensor [N, L]",
            got=f"{pre_acts.dtype} of shape {tuple(pre_acts.shape)}",
            remedy="Flatten leading axes first.",
        )
    if not 1 <= k <= pre_acts.shape[1]:
        raise argument_error(
            "k",
            expected=f"1 to L = {pre_acts.shape[1]}",
            got=k,
            remedy="Choose fewer active latents, or a larger dictionary.",
        )
