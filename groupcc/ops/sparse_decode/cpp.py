"""Launches csrc/sparse_decode.cpp: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops.cost import dense_decode
from groupcc.ops.decode_native import address, gradients, widened
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
    acts, indices = widened(acts_NK), indices_NK.contiguous()
    W_dec = W_dec_LGD.contiguous()
    b_dec = None if b_dec_GD is None else b_dec_GD.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    out = empty((N, G, D), W_dec.dtype)
    _C.sparse_decode(
        acts.data_ptr(),
        indices.data_ptr(),
        W_dec.data_ptr(),
        address(b_dec),
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
    return gradients(grad_NGD, None, acts_NK, indices_NK, W_dec_LGD)
