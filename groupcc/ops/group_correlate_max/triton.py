"""group_correlate_max on GPUs: acts [N, G, D], W [L, G, D], b [L] → values, poses int64 [N, L]."""

from __future__ import annotations

import torch

from groupcc.ops._triton import launch
from groupcc.ops._triton.group_strongest import strongest
from groupcc.ops._triton.group_transform import coefficients, products, too_large
from groupcc.ops.group_correlate_max import Args

__all__ = ["forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    if args.acts_NGD.dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    return launch.why_not(args) or too_large(len(args.acts_NGD), len(args.W_LGD), args.acts_NGD.shape[2])


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, poses, and the coefficients of acts and W if they are to be kept."""
    acts_NGD, W_LGD, b_L, group, keep = args
    (N, _, D), L = acts_NGD.shape, len(W_LGD)
    acts, W = coefficients(acts_NGD, W_LGD, group)
    values, poses = strongest(products(acts, W, group, N, L, D), b_L, group, N)
    return (values, poses, acts, W) if keep else (values, poses, acts.new_empty(0), acts.new_empty(0))
