"""encode_topk in plain PyTorch: x [N, M], W_enc [M, L], b_enc [L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops.topk import topk

__all__ = ["Args", "encode_topk_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.encode_topk`."""

    x_NM: torch.Tensor
    W_enc_ML: torch.Tensor
    b_enc_L: torch.Tensor
    k: int


def encode_topk_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.encode_topk`."""
    return topk(torch.addmm(args.b_enc_L, args.x_NM, args.W_enc_ML), args.k)
