"""group_correlate on GPUs: acts [N, G, D], W [L, G, D] → z [N, L, G], laid out as [N, G, L], and back."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._group_fourier import saves_too_little
from groupcc.ops._triton import launch
from groupcc.ops._triton.group_transform import (
    coefficients,
    elements,
    gradients,
    plan_for,
    products,
    too_large,
    transform,
)

__all__ = ["backward", "forward", "slower", "unsupported"]


def slower(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group) -> str | None:
    return saves_too_little(group)


def unsupported(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group) -> str | None:
    return launch.why_not(acts_NGD, W_LGD) or too_large(len(acts_NGD), len(W_LGD), acts_NGD.shape[2])


def forward(
    acts_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, and the coefficients of acts and W for `backward`."""
    (N, G, D), L = acts_NGD.shape, len(W_LGD)
    plan, (acts, W) = plan_for(group, acts_NGD), coefficients(acts_NGD, W_LGD, group)
    found = products(acts, W, group, N, L, D)
    z = transform(found, plan.inverse.t(), plan.sizes, elements(group), N, L)
    return z.view(N, G, L).transpose(1, 2), acts, W


def backward(
    grad_NLG: torch.Tensor, acts: torch.Tensor, W: torch.Tensor, D: int, group: Group, need_acts: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (empty unless needed), d_W [L, G, D]."""
    N, L, _ = grad_NLG.shape
    plan = plan_for(group, grad_NLG)
    d_products = transform(grad_NLG.transpose(1, 2), plan.inverse, elements(group), plan.sizes, N, L)
    return gradients(d_products, acts, W, group, N, L, D, need_acts)
