"""encode_topk in plain PyTorch: x [N, M], W_enc [M, L], b_enc [L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

import torch

from groupcc.ops.topk import topk

__all__ = ["encode_topk_reference"]


def encode_topk_reference(
    x_NM: torch.Tensor, W_enc_ML: torch.Tensor, b_enc_L: torch.Tensor, k: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.encode_topk`."""
    return topk(torch.addmm(b_enc_L, x_NM, W_enc_ML), k)
