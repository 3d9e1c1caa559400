"""Launches csrc/sparse_decode.cpp for sparse_decode and encode_topk."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, contiguous, empty, threads, widened


def decode(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    """Σ_k acts[n, k] · W_dec[indices[n, k]] + b_dec: [N, G, D]."""
    acts, W_dec = widened(acts_NK), W_dec_LGD.contiguous()
    out = empty((len(acts), *W_dec.shape[1:]), W_dec.dtype)
    _C.sparse_decode(acts, indices_NK.contiguous(), W_dec, contiguous(b_dec_GD), out, threads())
    return out
