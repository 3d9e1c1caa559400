"""Launches csrc/sparse_decode.cpp: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops.cost import dense_decode
from groupcc.ops.native import _C, DTYPES, empty, threads, why_not

__all__ = ["backward", "forward", "slower", "unsupported"]


def unsupported(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> str | None:
    return why_not(acts_NK, indices_NK, W_dec_LGD, *([] if b_dec_GD is None else [b_dec_GD]))


def slower(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> str | None:
    return dense_decode(acts_NK, W_dec_LGD)


def forward(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    acts, indices = _wide(acts_NK), indices_NK.contiguous()
    W_dec = W_dec_LGD.contiguous()
    b_dec = None if b_dec_GD is None else b_dec_GD.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    out = empty((N, G, D), W_dec.dtype)
    _C.sparse_decode(
        acts.data_ptr(),
        indices.data_ptr(),
        W_dec.data_ptr(),
        0 if b_dec is None else b_dec.data_ptr(),
        out.data_ptr(),
        N,
        K,
        L,
        G * D,
        DTYPES[W_dec.dtype],
        threads(),
    )
    return out


def backward(
    grad_NGD: torch.Tensor, acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    acts, indices = _wide(acts_NK), indices_NK.contiguous()
    grad, W_dec = grad_NGD.contiguous(), W_dec_LGD.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    d_acts = torch.empty_like(acts)
    d_W_dec = empty((L, G, D), W_dec.dtype)
    d_b_dec = acts.new_empty(G, D)
    _C.sparse_decode_backward(
        grad.data_ptr(),
        0,
        acts.data_ptr(),
        indices.data_ptr(),
        W_dec.data_ptr(),
        d_acts.data_ptr(),
        d_W_dec.data_ptr(),
        d_b_dec.data_ptr(),
        N,
        K,
        L,
        G * D,
        DTYPES[W_dec.dtype],
        threads(),
    )
    return d_acts.to(acts_NK.dtype), d_W_dec, d_b_dec.to(W_dec.dtype)


def _wide(acts_NK: torch.Tensor) -> torch.Tensor:
    """Contiguous, in the type that the kernels sum in."""
    return acts_NK.to(torch.promote_types(acts_NK.dtype, torch.float32)).contiguous()
