"""Launches csrc/group_encode_at.cpp: x [N, G, D], W_enc [L, G, D], indices, poses [N, K] → acts [N, K]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.group_decode import dots, sums
from groupcc.ops._cpp.launch import why_not as unsupported
from groupcc.ops.group_encode_at import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def forward(args: Args) -> torch.Tensor:
    x, W_enc, b_enc, indices, poses, known, group = args
    if known is not None:
        return known.clone(memory_format=torch.contiguous_format)
    pre_NK, _ = dots(x, indices, poses, W_enc, group, need_sums=False)
    return torch.relu(pre_NK + b_enc[indices]).to(x.dtype)


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
    grad, x, indices, poses, L, group = args
    d_W_enc = sums(x, grad, indices, poses, L, group)
    wide = torch.promote_types(grad.dtype, torch.float32)
    d_b_enc = torch.zeros(L, dtype=wide, device="cpu")
    d_b_enc.index_add_(0, indices.flatten(), grad.flatten().to(wide))
    return d_W_enc, d_b_enc.to(x.dtype)
