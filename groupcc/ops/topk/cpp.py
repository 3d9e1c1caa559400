"""Launches csrc/topk.cpp: pre_acts [N, L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, empty, threads, why_not

__all__ = ["backward", "forward", "unsupported"]


def unsupported(pre_acts_NL: torch.Tensor, k: int) -> str | None:
    if pre_acts_NL.shape[1] >= 1 << 32:
        return f"the C++ kernels number fewer than 2**32 latents, got {pre_acts_NL.shape[1]}"
    return why_not(pre_acts_NL)


def forward(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    pre_acts = pre_acts_NL if pre_acts_NL.stride(1) == 1 else pre_acts_NL.contiguous()
    N = len(pre_acts)
    acts, indices = empty((N, k), pre_acts.dtype), empty((N, k), torch.int64)
    _C.topk(pre_acts, acts, indices, threads())
    return acts, indices


def backward(
    grad_acts_NK: torch.Tensor, acts_NK: torch.Tensor, indices_NK: torch.Tensor, n_latents: int
) -> torch.Tensor:
    d_pre_NL = empty((acts_NK.shape[0], n_latents), acts_NK.dtype).zero_()
    # Added, as batchtopk's padding shares index 0 with what may stand there.
    return d_pre_NL.scatter_add_(1, indices_NK, torch.where(acts_NK > 0, grad_acts_NK, 0.0))
