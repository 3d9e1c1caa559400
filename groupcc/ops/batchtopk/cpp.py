"""Launches csrc/batchtopk.cpp: pre_acts [N, L] → acts [N, K], indices [N, K], threshold []."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, empty, threads, why_not

__all__ = ["forward", "unsupported"]


def unsupported(pre_acts_NL: torch.Tensor, k: int) -> str | None:
    if pre_acts_NL.shape[1] >= 1 << 32:
        return f"the C++ kernels number fewer than 2**32 latents, got {pre_acts_NL.shape[1]}"
    return why_not(pre_acts_NL)


def forward(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pre_acts = pre_acts_NL if pre_acts_NL.stride(1) == 1 else pre_acts_NL.contiguous()
    N, dtype = len(pre_acts), pre_acts.dtype
    chosen = _C.BatchTopk(pre_acts, k, threads())
    acts, indices = empty((N, chosen.K), dtype), empty((N, chosen.K), torch.int64)
    chosen.write(acts, indices)
    return acts, indices, empty((), dtype).fill_(chosen.threshold)
