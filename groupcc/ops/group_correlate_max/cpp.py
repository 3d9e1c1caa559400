"""group_correlate_max by csrc/group_correlate_max.cpp: acts [N, G, D], W [L, G, D], b [L] → values, poses [N, L].

A chunk of examples goes through transform, products, inverse transform and maximum in one thread's cache. No
coefficients are kept, so there are no gradients: `groupcc.ops.group_encode_at` has those of what is chosen.
"""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.group_transform import elements, folds_of, transform, weights_layout
from groupcc.ops._cpp.launch import _C, threads, why_not
from groupcc.ops.group_correlate import plan_of, saves_too_little

__all__ = ["forward", "slower", "unsupported"]


def slower(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group) -> str | None:
    return saves_too_little(group)


def unsupported(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group) -> str | None:
    if acts_NGD.dtype not in (torch.float32, torch.float64):
        return f"the C++ kernels take float32 or float64, got {acts_NGD.dtype}"
    return why_not(acts_NGD, W_LGD, b_L)


def forward(
    acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values and poses, and no coefficients."""
    (N, G, D), L, dtype = acts_NGD.shape, len(W_LGD), acts_NGD.dtype
    plan = plan_of(group, dtype, acts_NGD.device)
    right = folds_of(group, "right", dtype)
    W = transform(W_LGD, right, elements(L, G, D), weights_layout(plan, L, D))
    acts, b = acts_NGD.contiguous(), b_L.contiguous()
    values, poses = acts.new_empty(N, L), acts.new_empty(N, L, dtype=torch.int64)
    left, inverse = folds_of(group, "left", dtype).compiled, folds_of(group, "inverse", dtype).compiled
    _C.group_correlate_max(acts, W, b, values, poses, left, inverse, plan.sizes, threads())
    return values, poses, acts.new_empty(0), acts.new_empty(0)
