"""The backward pass of topk and batchtopk on GPUs: gradients of chosen acts [N, K] → of pre-activations [N, L]."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from groupcc.ops._triton.launch import Build, fused

_BLOCK = 1024


def scatter_acts(grad_NK: torch.Tensor, acts_NK: torch.Tensor, indices_NK: torch.Tensor, L: int) -> torch.Tensor:
    """d[n, indices[n, k]] = grad[n, k] where acts[n, k] > 0, all else 0: [N, L].

    Padding (act 0) may repeat an index; what is positive does not, so writes never meet and nothing is added.
    """
    d_pre = grad_NK.new_zeros(acts_NK.shape[0], L)
    N, K = acts_NK.shape
    if N * K:
        grad, acts, indices = grad_NK.contiguous(), acts_NK.contiguous(), indices_NK.contiguous()
        scatter_kernel[(triton.cdiv(N * K, _BLOCK),)](grad, acts, indices, d_pre, N * K, K, L, BLOCK=_BLOCK)
    return d_pre


def builds() -> list[Build]:
    found = []
    for dtype in ("bf16", "fp16", "fp32"):
        types = {
            **dict.fromkeys(("grad", "acts", "d_pre"), f"*{dtype}"),
            "indices": "*i64",
            **dict.fromkeys(("n", "K", "L"), "i64"),
        }
        config = triton.Config({"BLOCK": _BLOCK}, num_warps=4)
        found.append(Build.of(scatter_kernel, types, config, {}, ("n", "K", "L")))
    return found


@fused
@triton.jit
def scatter_kernel(grad, acts, indices, d_pre, n, K, L, BLOCK: tl.constexpr):
    entries = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = entries < n
    positive = inside & (tl.load(acts + entries, mask=inside, other=0.0) > 0)
    # Rows by 64-bit division once an entry; the stores, one sector each, are what costs.
    at = (entries // K) * L + tl.load(indices + entries, mask=positive, other=0)
    tl.store(d_pre + at, tl.load(grad + entries, mask=positive, other=0.0), mask=positive)
