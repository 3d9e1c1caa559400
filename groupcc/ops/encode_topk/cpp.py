"""encode_topk on the CPU: x [N, M], W_enc [M, L], b_enc [L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import logging

import torch

from groupcc.ops._cpp.decode import decode
from groupcc.ops._cpp.launch import _C, empty, threads, widened
from groupcc.ops._cpp.launch import why_not as unsupported
from groupcc.ops._cpp.topk import topk
from groupcc.ops._dense_decode import dense_decode, dense_pays
from groupcc.ops._dispatch import log_once
from groupcc.ops.encode_topk import Args, Backward
from groupcc.ops.encode_topk.cpp_screening import pays, screened

__all__ = ["backward", "forward", "unsupported"]

# Pre-activations of so many bytes at a time: they stay in the last-level cache between the product and the choice.
BLOCK_BYTES = 16 << 20


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    (N, M), L = args.x_NM.shape, args.W_enc_ML.shape[1]
    if not pays(args):
        log_once(f"encode_topk at N={N}, M={M}, L={L}, k={args.k}: full product, in blocks of rows.", logging.DEBUG)
        return _full(args)
    log_once(f"encode_topk at N={N}, M={M}, L={L}, k={args.k}: screened by a bfloat16 product.", logging.DEBUG)
    acts, indices, left = screened(args)
    if len(left):
        acts[left], indices[left] = _full(args._replace(x_NM=args.x_NM[left]))
    return acts, indices


def _full(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """Of all pre-activations, a block of rows at a time."""
    x_NM, W_enc_ML, b_enc_L, k = args
    N, L = x_NM.shape[0], W_enc_ML.shape[1]
    acts, indices = x_NM.new_empty(N, k), empty((N, k), torch.int64)
    rows = max(BLOCK_BYTES // (L * x_NM.itemsize), 64)
    pre = empty((min(rows, N), L), x_NM.dtype)
    for start in range(0, N, rows):
        block = slice(start, min(start + rows, N))
        pre_block = pre[: block.stop - start]
        torch.addmm(b_enc_L, x_NM[block], W_enc_ML, out=pre_block)
        acts[block], indices[block] = topk(pre_block, k)
    return acts, indices


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    M, L = args.W_enc_ML.shape
    x, indices = args.x_NM.contiguous(), args.indices_NK.contiguous()
    grad = torch.where(args.acts_NK > 0, args.grad_acts_NK, 0)
    d_W, d_b = empty((L, M), x.dtype), empty((L,), x.dtype)
    _C.encode_topk_backward(widened(grad), indices, x, d_W, d_b, threads())
    if not args.need_x:
        return x.new_empty(0, M), d_W.t(), d_b
    W_L1M = args.W_enc_ML.t()[:, None]
    d_x = dense_decode(grad, indices, W_L1M) if dense_pays(grad, W_L1M) else decode(grad, indices, W_L1M, None)
    return d_x[:, 0], d_W.t(), d_b
