"""Launches csrc/decode_loss.cpp: acts, indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.decode import address, widened
from groupcc.ops._cpp.launch import _C, DTYPES, empty, threads, why_not
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
    b_dec = None if b_dec_GD is None else b_dec_GD.contiguous()
    target = target.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    S = pixels = P = T = 0
    index_GPT = weight_GPT = None
    if points_GP2 is not None:
        _, S, H, W, _ = target.shape
        pixels, P = H * W, points_GP2.shape[1]
        index_GPT, weights = sampling_taps(points_GP2.cpu(), H, W, interpolation)
        index_GPT, weight_GPT = index_GPT.contiguous(), weights.to(acts.dtype).contiguous()
        T = index_GPT.shape[2]
    loss = acts.new_empty(G)
    residual = empty((N, G, D), W_dec.dtype)
    _C.decode_loss(
        acts.data_ptr(),
        indices.data_ptr(),
        W_dec.data_ptr(),
        address(b_dec),
        target.data_ptr() if points_GP2 is None else 0,
        0 if points_GP2 is None else target.data_ptr(),
        address(index_GPT),
        address(weight_GPT),
        S,
        pixels,
        P,
        T,
        loss.data_ptr(),
        residual.data_ptr(),
        N,
        K,
        L,
        G,
        D,
        DTYPES[W_dec.dtype],
        threads(),
    )
    return loss, residual
