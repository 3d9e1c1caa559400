"""Launches csrc/sparse_decode.cpp: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops.native import _C, DTYPES, empty, threads, why_not

__all__ = ["backward", "forward", "unsupported"]


def unsupported(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> str | None:
    return why_not(acts_NK, indices_NK, W_dec_LGD, *([] if b_dec_GD is None else [b_dec_GD]))


def forward(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    acts, indices, W_dec = acts_NK.contiguous(), indices_NK.contiguous(), W_dec_LGD.contiguous()
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
    d_acts = torch.einsum("nm,nkm->nk", grad_NGD.flatten(1), W_dec_LGD.flatten(1)[indices_NK])
    scaled = acts_NK[:, :, None, None] * grad_NGD[:, None]
    d_W_dec = torch.zeros_like(W_dec_LGD).index_add_(0, indices_NK.flatten(), scaled.flatten(0, 1))
    return d_acts, d_W_dec, grad_NGD.sum(0)
