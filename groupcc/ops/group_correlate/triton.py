"""group_correlate on GPUs: acts [N, G, D], W [L, G, D] → z [N, L, G], laid out as [N, G, L], and back."""

from __future__ import annotations

import torch

from groupcc.ops._triton import launch
from groupcc.ops._triton.group_strongest import spread
from groupcc.ops._triton.group_transform import (
    coefficients,
    elements,
    gradients,
    plan_for,
    products,
    too_large,
    transform,
)
from groupcc.ops.group_correlate import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return launch.why_not(args) or too_large(len(args.acts_NGD), len(args.W_LGD), args.acts_NGD.shape[2])


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, and the coefficients of acts and W for `backward`."""
    acts_NGD, W_LGD, group = args
    (N, G, D), L = acts_NGD.shape, len(W_LGD)
    plan, (acts, W) = plan_for(group, acts_NGD), coefficients(acts_NGD, W_LGD, group)
    z = transform(products(acts, W, group, N, L, D), plan.inverse.t(), plan.sizes, elements(group), N, L)
    return z.view(N, G, L).transpose(1, 2), acts, W


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (empty unless needed), d_W [L, G, D]."""
    grad, poses_NL, acts, W, D, group, need_acts = args
    (N, L), plan = grad.shape[:2], plan_for(group, grad)
    if poses_NL is None:
        d_products = transform(grad.transpose(1, 2), plan.inverse, elements(group), plan.sizes, N, L)
    else:
        d_products = spread(grad, poses_NL, group)
    return gradients(d_products, acts, W, group, N, L, D, need_acts)
