"""Launches csrc/sparse_decode.cpp: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.decode import contiguous, widened
from groupcc.ops._cpp.launch import _C, empty, threads, why_not
from groupcc.ops._decode_cost import dense_decode as slower

__all__ = ["backward", "forward", "slower", "unsupported"]


def unsupported(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> str | None:
    return why_not(acts_NK, indices_NK, W_dec_LGD, *([] if b_dec_GD is None else [b_dec_GD]))


def forward(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    acts, indices = widened(acts_NK), indices_NK.contiguous()
    W_dec = W_dec_LGD.contiguous()
    out = empty((len(acts), *W_dec.shape[1:]), W_dec.dtype)
    _C.sparse_decode(acts, indices, W_dec, contiguous(b_dec_GD), out, threads())
    return out


def backward(
    grad_NGD: torch.Tensor,
    scale_G: torch.Tensor | None,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    need_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    acts, indices = widened(acts_NK), indices_NK.contiguous()
    grad, W_dec = grad_NGD.contiguous(), W_dec_LGD.contiguous()
    _, G, D = W_dec.shape
    scale = None if scale_G is None else scale_G.to(acts.dtype).repeat_interleave(D)
    d_acts = torch.empty_like(acts)
    d_W_dec = empty(tuple(W_dec.shape), W_dec.dtype)
    d_b_dec = acts.new_empty(G, D) if need_bias else None
    _C.sparse_decode_backward(grad, scale, acts, indices, W_dec, d_acts, d_W_dec, d_b_dec, threads())
    return d_acts.to(acts_NK.dtype), d_W_dec, W_dec.new_empty(0) if d_b_dec is None else d_b_dec.to(W_dec.dtype)
