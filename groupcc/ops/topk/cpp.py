"""topk on the CPU: pre_acts [N, L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import empty
from groupcc.ops._cpp.topk import topk, unsupported
from groupcc.ops.topk import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    return topk(args.pre_acts_NL, args.k)


def backward(args: Backward) -> torch.Tensor:
    d_pre_NL = empty((len(args.acts_NK), args.n_latents), args.acts_NK.dtype).zero_()
    # Added, as batchtopk's padding shares index 0 with what may stand there.
    return d_pre_NL.scatter_add_(1, args.indices_NK, torch.where(args.acts_NK > 0, args.grad_acts_NK, 0.0))
