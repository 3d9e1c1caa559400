"""sparse_decode in plain PyTorch: acts [N, K], indices [N, K], W_dec [L, G, D] → [N, G, D]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from groupcc.ops._decode_cost import dense_decode

__all__ = ["sparse_decode_reference"]


def sparse_decode_reference(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    """See `groupcc.ops.sparse_decode`."""
    L, G, D = W_dec_LGD.shape
    N = acts_NK.shape[0]
    W_dec = W_dec_LGD.reshape(L, G * D)
    if N == 0 or dense_decode(acts_NK, indices_NK, W_dec_LGD):
        dense = acts_NK.new_zeros(N, L).scatter_add(1, indices_NK, acts_NK)
        out = (dense @ W_dec).view(N, G, D)
    else:
        out = F.embedding_bag(indices_NK, W_dec, mode="sum", per_sample_weights=acts_NK).view(N, G, D)
    return out if b_dec_GD is None else out + b_dec_GD
