"""group_correlate_max by csrc/group_correlate_max.cpp: acts [N, G, D], W [L, G, D], b [L] → values, poses [N, L].

A chunk of examples goes through transform, products, inverse transform and maximum in one thread's cache. No
coefficients are kept, so there are no gradients: `groupcc.ops.group_encode_at` has those of what is chosen.
"""

from __future__ import annotations

import torch

from groupcc.ops._cpp.group_transform import elements, folds_of, transform, weights_layout
from groupcc.ops._cpp.launch import _C, threads, why_not
from groupcc.ops._group_fourier import plan_of
from groupcc.ops.group_correlate_max import Args

__all__ = ["forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    if args.acts_NGD.dtype not in (torch.float32, torch.float64):
        return f"the C++ kernels take float32 or float64, got {args.acts_NGD.dtype}"
    return why_not(args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values and poses, and no coefficients."""
    acts, b, group = args.acts_NGD.contiguous(), args.b_L.contiguous(), args.group
    (N, G, D), L, dtype = acts.shape, len(args.W_LGD), acts.dtype
    plan = plan_of(group, dtype, acts.device)
    left, right, inverse = (folds_of(group, which, dtype) for which in ("left", "right", "inverse"))
    W = transform(args.W_LGD, right, elements(L, G, D), weights_layout(plan, L, D))
    values, poses = acts.new_empty(N, L), acts.new_empty(N, L, dtype=torch.int64)
    _C.group_correlate_max(acts, W, b, values, poses, left.compiled, inverse.compiled, plan.sizes, threads())
    return values, poses, acts.new_empty(0), acts.new_empty(0)
