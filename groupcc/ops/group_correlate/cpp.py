"""group_correlate on the CPU: acts [N, G, D], W [L, G, D] → z [N, L, G], transforms in C++, products by BLAS.

Coefficients lie as the products read and write them: those of acts as [irrep, i, N, m, D], those of W as
[irrep, j, L, m, D], their products as [irrep, i, N, j, L], so that nothing is permuted in between; z lies as [N, G, L].
"""

from __future__ import annotations

import torch

from groupcc.ops._cpp.group_transform import acts_layout, elements, folds_of, products_layout, transform, weights_layout
from groupcc.ops._cpp.launch import empty, why_not
from groupcc.ops._cpp.products import bmm
from groupcc.ops._group_fourier import by_size, plan_of
from groupcc.ops.group_correlate import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    if args.acts_NGD.dtype not in (torch.float32, torch.float64):
        return f"the C++ kernels take float32 or float64, got {args.acts_NGD.dtype}"
    return why_not(args)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z, and the coefficients of acts and W for `backward`."""
    acts_NGD, W_LGD, group = args
    (N, G, D), L = acts_NGD.shape, len(W_LGD)
    plan = plan_of(group, acts_NGD.dtype, acts_NGD.device)
    left, right, inverse = (folds_of(group, which, acts_NGD.dtype) for which in ("left", "right", "inverse"))
    acts = transform(acts_NGD, left, elements(N, G, D), acts_layout(plan, N, D))
    W = transform(W_LGD, right, elements(L, G, D), weights_layout(plan, L, D))
    products = empty((products_layout(plan, N, L).numel,), acts.dtype)
    for acts_b, W_b, products_b in by_size(plan.sizes, N, L, D, acts, W, products):
        bmm(acts_b, W_b.transpose(1, 2), products_b)
    z = transform(products, inverse, products_layout(plan, N, L), elements(N, G, L), back=True)
    return z.view(N, G, L).transpose(1, 2), acts, W


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (empty unless needed), d_W [L, G, D]; of z alone."""
    grad_NLG, _, acts, W, D, group, need_acts = args
    N, L, G = grad_NLG.shape
    plan = plan_of(group, grad_NLG.dtype, grad_NLG.device)
    left, right, inverse = (folds_of(group, which, grad_NLG.dtype) for which in ("left", "right", "inverse"))
    grad_NGL = grad_NLG.transpose(1, 2)
    d_products = transform(grad_NGL, inverse, elements(N, G, L), products_layout(plan, N, L))
    d_W = torch.empty_like(W)
    for acts_b, d_W_b, d_products_b in by_size(plan.sizes, N, L, D, acts, d_W, d_products):
        bmm(d_products_b.transpose(1, 2), acts_b, d_W_b)
    d_W = transform(d_W, right, weights_layout(plan, L, D), elements(L, G, D), back=True).view(L, G, D)
    if not need_acts:
        return grad_NLG.new_empty(0, G, D), d_W
    d_acts = torch.empty_like(acts)
    for d_acts_b, W_b, d_products_b in by_size(plan.sizes, N, L, D, d_acts, W, d_products):
        bmm(d_products_b, W_b, d_acts_b)
    d_acts = transform(d_acts, left, acts_layout(plan, N, D), elements(N, G, D), back=True)
    return d_acts.view(N, G, D), d_W
