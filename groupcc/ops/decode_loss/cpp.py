"""Launches csrc/decode_loss.cpp: acts, indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.decode import contiguous, widened
from groupcc.ops._cpp.launch import _C, empty, threads, why_not
from groupcc.ops._decode_cost import dense_decode as slower
from groupcc.ops.orbit_gather import sampling_taps

__all__ = ["forward", "slower", "unsupported"]


def unsupported(
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    b_dec_GD: torch.Tensor | None,
    target: torch.Tensor,
    points_GP2: torch.Tensor | None,
    interpolation: str,
) -> str | None:
    return why_not(acts_NK, indices_NK, W_dec_LGD, target, *([] if b_dec_GD is None else [b_dec_GD]))


def forward(
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    b_dec_GD: torch.Tensor | None,
    target: torch.Tensor,
    points_GP2: torch.Tensor | None,
    interpolation: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    acts, indices, W_dec = widened(acts_NK), indices_NK.contiguous(), W_dec_LGD.contiguous()
    b_dec = contiguous(b_dec_GD)
    target = target.contiguous()
    index_GPT = weight_GPT = None
    if points_GP2 is not None:
        H, W = target.shape[2:4]
        index, weight = sampling_taps(points_GP2.cpu(), H, W, interpolation)
        index_GPT, weight_GPT = index.contiguous(), weight.to(acts.dtype).contiguous()
    N, (_, G, D) = len(acts), W_dec.shape
    loss, residual = acts.new_empty(G), empty((N, G, D), W_dec.dtype)
    _C.decode_loss(acts, indices, W_dec, b_dec, target, index_GPT, weight_GPT, loss, residual, threads())
    return loss, residual
