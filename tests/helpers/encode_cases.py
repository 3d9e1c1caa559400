"""Inputs for encode_topk's tests, and what its results are held to."""

import torch

from groupcc import ops
from groupcc.ops.topk.reference import topk_reference
from helpers.selection_cases import INF


def case(N, M, L, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, W, b = (torch.randn(*shape, generator=g) for shape in ((N, M), (L, M), (L,)))
    return x.to(dtype), W.div(M**0.5).to(dtype).t(), b.mul(0.3).to(dtype)


def plain(x, W, b, k):
    return topk_reference(torch.addmm(b, x, W), k)


def check(x, W, b, k, device="cpu"):
    """The chosen are the k largest up to rounding, and as accurate as PyTorch's in the same dtype."""
    acts, indices = (t.cpu() for t in ops.encode_topk(x.to(device), W.to(device), b.to(device), k))
    exact = torch.addmm(b.double(), x.double(), W.double())
    rounding = 2 * (torch.addmm(b, x, W).double() - exact).abs().amax(1, keepdim=True)
    # What the sum of a product's terms can be off by at best: a tie of exact sums is not one of rounded ones.
    size = b.double().abs() + x.double().abs() @ W.double().abs()
    rounding = rounding.maximum(2 * torch.finfo(x.dtype).eps * size.amax(1, keepdim=True)) + 1e-300
    assert acts.dtype == x.dtype
    assert acts.shape == indices.shape == (len(x), k)
    assert indices.dtype == torch.int64
    assert all(len(set(row)) == k for row in indices.tolist())
    assert (acts[:, 1:] <= acts[:, :-1]).all()
    chosen = exact.gather(1, indices)
    assert ((acts.double() - chosen.relu()).abs() <= rounding).all()
    others = exact.scatter(1, indices, -INF)
    assert (chosen.amin(1) >= others.amax(1) - 2 * rounding[:, 0]).all()
    return acts, indices


def whole_numbers(N, M, L, largest=4, seed=0):
    """Exact in every product and sum, and full of ties."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(-largest, largest + 1, s, generator=g).float() for s in ((N, M), (M, L), (L,))]
