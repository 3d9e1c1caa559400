"""Launches csrc/sparse_decode.cpp: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.decode import decode
from groupcc.ops._cpp.launch import _C, empty, threads, widened
from groupcc.ops._cpp.launch import why_not as unsupported
from groupcc.ops.sparse_decode import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def forward(args: Args) -> torch.Tensor:
    return decode(*args)


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of decode_loss too."""
    acts, indices = widened(args.acts_NK), args.indices_NK.contiguous()
    grad, W_dec = args.grad_NGD.contiguous(), args.W_dec_LGD.contiguous()
    _, G, D = W_dec.shape
    scale = None if args.scale_G is None else args.scale_G.to(acts.dtype).repeat_interleave(D)
    d_acts = torch.empty_like(acts)
    d_W_dec = empty(tuple(W_dec.shape), W_dec.dtype)
    d_b_dec = acts.new_empty(G, D) if args.need_bias else None
    _C.sparse_decode_backward(grad, scale, acts, indices, W_dec, d_acts, d_W_dec, d_b_dec, threads())
    d_b_dec = W_dec.new_empty(0) if d_b_dec is None else d_b_dec.to(W_dec.dtype)
    return d_acts.to(args.acts_NK.dtype), d_W_dec, d_b_dec
