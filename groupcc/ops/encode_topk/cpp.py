"""encode_topk on the CPU: x [N, M], W_enc [M, L], b_enc [L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import logging

import torch

from groupcc.ops._cpp.launch import _C, empty, threads, why_not
from groupcc.ops._dispatch import log_once, use_backend
from groupcc.ops.encode_topk.cpp_screening import pays, screened
from groupcc.ops.sparse_decode import sparse_decode
from groupcc.ops.topk import topk

__all__ = ["backward", "forward", "unsupported"]

# Pre-activations of so many bytes at a time: they stay in the last-level cache between the product and the choice.
BLOCK_BYTES = 16 << 20


def unsupported(x_NM: torch.Tensor, W_enc_ML: torch.Tensor, b_enc_L: torch.Tensor, k: int) -> str | None:
    return why_not(x_NM, W_enc_ML, b_enc_L)


def forward(
    x_NM: torch.Tensor, W_enc_ML: torch.Tensor, b_enc_L: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    (N, M), L = x_NM.shape, W_enc_ML.shape[1]
    if not pays(x_NM, W_enc_ML, k):
        log_once(f"encode_topk at N={N}, M={M}, L={L}, k={k}: full product, in blocks of rows.", logging.DEBUG)
        return _full(x_NM, W_enc_ML, b_enc_L, k)
    log_once(f"encode_topk at N={N}, M={M}, L={L}, k={k}: screened by a bfloat16 product.", logging.DEBUG)
    acts, indices, left = screened(x_NM, W_enc_ML, b_enc_L, k)
    if len(left):
        acts[left], indices[left] = _full(x_NM[left], W_enc_ML, b_enc_L, k)
    return acts, indices


def _full(
    x_NM: torch.Tensor, W_enc_ML: torch.Tensor, b_enc_L: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    N, L = x_NM.shape[0], W_enc_ML.shape[1]
    acts, indices = x_NM.new_empty(N, k), empty((N, k), torch.int64)
    rows = max(BLOCK_BYTES // (L * x_NM.itemsize), 64)
    pre = empty((min(rows, N), L), x_NM.dtype)
    for start in range(0, N, rows):
        block = slice(start, min(start + rows, N))
        pre_block = pre[: block.stop - start]
        torch.addmm(b_enc_L, x_NM[block], W_enc_ML, out=pre_block)
        with use_backend("auto"):  # a compiled graph runs outside the block that chose this backend
            acts[block], indices[block] = topk(pre_block, k)
    return acts, indices


def backward(
    grad_acts_NK: torch.Tensor,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    x_NM: torch.Tensor,
    W_enc_ML: torch.Tensor,
    need_x: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    M, L = W_enc_ML.shape
    x, indices = x_NM.contiguous(), indices_NK.contiguous()
    grad = torch.where(acts_NK > 0, grad_acts_NK, 0)
    wide = grad.to(torch.promote_types(grad.dtype, torch.float32)).contiguous()
    d_W, d_b = empty((L, M), x.dtype), empty((L,), x.dtype)
    _C.encode_topk_backward(wide, indices, x, d_W, d_b, threads())
    d_x = x.new_empty(0, M)
    if need_x:
        with use_backend("auto"):
            d_x = sparse_decode(grad, indices, W_enc_ML.t()[:, None], None).squeeze(1)
    return d_x, d_W.t(), d_b
