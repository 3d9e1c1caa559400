"""sparse_decode in plain PyTorch: acts [N, K], indices [N, K], W_dec [L, G, D] → [N, G, D]."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from groupcc.ops._dense_decode import dense_decode, dense_pays

__all__ = ["Args", "sparse_decode_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.sparse_decode`."""

    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    W_dec_LGD: torch.Tensor
    b_dec_GD: torch.Tensor | None


def sparse_decode_reference(args: Args) -> torch.Tensor:
    """See `groupcc.ops.sparse_decode`."""
    acts, indices, W_dec, b_dec = args
    N, (L, G, D) = acts.shape[0], W_dec.shape
    if N == 0 or dense_pays(acts, W_dec):
        out = dense_decode(acts, indices, W_dec)
    else:
        W_flat = W_dec.reshape(L, G * D)
        out = F.embedding_bag(indices, W_flat, mode="sum", per_sample_weights=acts).view(N, G, D)
    return out if b_dec is None else out + b_dec
