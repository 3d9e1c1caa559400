"""Launches csrc/decode_loss.cpp: acts, indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.launch import _C, contiguous, empty, threads, why_not, widened
from groupcc.ops.decode_loss import Args
from groupcc.ops.orbit_gather import sampling_taps

__all__ = ["forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return why_not(args[:5])


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    acts, W_dec, target = widened(args.acts_NK), args.W_dec_LGD.contiguous(), args.target.contiguous()
    index_GPT = weight_GPT = None
    if args.points_GP2 is not None:
        H, W = target.shape[2:4]
        index, weight = sampling_taps(args.points_GP2.cpu(), H, W, args.interpolation)
        index_GPT, weight_GPT = index.contiguous(), weight.to(acts.dtype).contiguous()
    N, (_, G, D) = len(acts), W_dec.shape
    loss, residual = acts.new_empty(G), empty((N, G, D), W_dec.dtype)
    latents = acts, args.indices_NK.contiguous(), W_dec, contiguous(args.b_dec_GD)
    _C.decode_loss(*latents, target, index_GPT, weight_GPT, loss, residual, threads())
    return loss, residual
