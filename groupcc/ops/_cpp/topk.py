"""Launches csrc/topk.cpp for topk and encode_topk."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.ops._cpp.launch import _C, empty, threads, why_not


def unsupported(args: tuple[Any, ...]) -> str | None:
    """Why the kernels of topk and batchtopk don't take these arguments, pre_acts [N, L] first; or None."""
    L = args[0].shape[1]
    if L >= 1 << 32:
        return f"the C++ kernels number fewer than 2**32 latents, got {L}"
    return why_not(args)


def topk(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """acts, indices [N, k]."""
    pre_acts = pre_acts_NL if pre_acts_NL.stride(1) == 1 else pre_acts_NL.contiguous()
    shape = len(pre_acts), k
    acts, indices = empty(shape, pre_acts.dtype), empty(shape, torch.int64)
    _C.topk(pre_acts, acts, indices, threads())
    return acts, indices
