"""topk on GPUs: pre_acts [N, L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import torch

from groupcc.ops._triton import topk as kernel
from groupcc.ops._triton.scatter import scatter_acts
from groupcc.ops.topk import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return kernel.unsupported(*args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    return kernel.topk(*args)


def backward(args: Backward) -> torch.Tensor:
    return scatter_acts(args.grad_acts_NK, args.acts_NK, args.indices_NK, args.n_latents)
