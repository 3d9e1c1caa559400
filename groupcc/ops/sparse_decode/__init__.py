"""sparse_decode: active latents → reconstruction of every block."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.ops.backend import Op
from groupcc.ops.sparse_decode.reference import sparse_decode_reference

__all__ = ["sparse_decode"]

_op = Op("sparse_decode", sparse_decode_reference)


def sparse_decode(acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor) -> torch.Tensor:
    """out[n, g] = Σ_k acts[n, k] · W_dec[indices[n, k], g]: [N, K], int64 [N, K], [L, G, D] → [N, G, D].

    An index may stand more than once in a row. Gradients flow to `acts` and `W_dec`. The dtype is that of `W_dec`,
    which `acts` must share. Deterministic on the CPU.
    """
    if acts.shape != indices.shape or acts.dim() != 2 or indices.dtype != torch.int64:
        raise argument_error(
            "indices",
            expected="int64 [N, K], the shape of acts",
            got=f"{indices.dtype} of shape {tuple(indices.shape)} beside acts of shape {tuple(acts.shape)}",
            remedy="Pass the pair that ops.topk returns.",
        )
    if W_dec.dim() != 3 or W_dec.dtype != acts.dtype:
        raise argument_error(
            "W_dec",
            expected=f"{acts.dtype} of shape [L, G, D]",
            got=f"{W_dec.dtype} of shape {tuple(W_dec.shape)}",
            remedy="Convert acts or W_dec so that both have one dtype.",
        )
    return _op(acts, indices, W_dec)
