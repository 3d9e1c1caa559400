"""Launches csrc/batchtopk.cpp: pre_acts [N, L] → acts [N, K], indices [N, K], threshold []."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, empty, threads
from groupcc.ops._cpp.topk import unsupported
from groupcc.ops.batchtopk import Args

__all__ = ["forward", "unsupported"]


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    pre_acts = args.pre_acts_NL if args.pre_acts_NL.stride(1) == 1 else args.pre_acts_NL.contiguous()
    chosen = _C.BatchTopk(pre_acts, args.k, threads())
    shape = len(pre_acts), chosen.K
    acts, indices = empty(shape, pre_acts.dtype), empty(shape, torch.int64)
    chosen.write(acts, indices)
    return acts, indices, empty((), pre_acts.dtype).fill_(chosen.threshold)
