"""topk on GPUs: pre_acts [N, L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import torch

from groupcc.ops._triton import topk as kernel
from groupcc.ops._triton.launch import why_not
from groupcc.ops._triton.scatter import scatter_acts
from groupcc.ops.topk import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    pre_acts_NL, k = args
    return kernel.unsupported(pre_acts_NL.dtype, pre_acts_NL.shape[1], k) or why_not(args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    return kernel.topk(*args)


def backward(args: Backward) -> torch.Tensor:
    return scatter_acts(args.grad_acts_NK, args.acts_NK, args.indices_NK, args.n_latents)
