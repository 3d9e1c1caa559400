"""group_correlate_max on GPUs: acts [N, G, D], W [L, G, D], b [L] → values, poses int64 [N, L], and back."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._triton import launch
from groupcc.ops._triton.group_strongest import spread, strongest
from groupcc.ops._triton.group_transform import coefficients, gradients, products, too_large
from groupcc.ops.group_correlate import saves_too_little

__all__ = ["backward", "forward", "slower", "unsupported"]


def slower(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group) -> str | None:
    return saves_too_little(group)


def unsupported(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group) -> str | None:
    if acts_NGD.dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    return launch.why_not(acts_NGD, W_LGD, b_L) or too_large(len(acts_NGD), len(W_LGD), acts_NGD.shape[2])


def forward(
    acts_NGD: torch.Tensor, W_LGD: torch.Tensor, b_L: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, poses, and the coefficients of acts and W for `backward`."""
    (N, _, D), L = acts_NGD.shape, len(W_LGD)
    acts, W = coefficients(acts_NGD, W_LGD, group)
    return *strongest(products(acts, W, group, N, L, D), b_L, group, N), acts, W


def backward(
    grad_NL: torch.Tensor,
    poses_NL: torch.Tensor,
    acts: torch.Tensor,
    W: torch.Tensor,
    D: int,
    group: Group,
    need_acts: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (empty unless needed), d_W [L, G, D]."""
    N, L = grad_NL.shape
    return gradients(spread(grad_NL, poses_NL, group), acts, W, group, N, L, D, need_acts)
