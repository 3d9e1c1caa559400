"""Launches csrc/group_decode_loss.cpp: acts, indices, poses [N, K], W_dec [L, G, D], target → loss, residual."""

from __future__ import annotations

import torch

from groupcc.ops._cpp.group_decode import dots, pose_table, sums
from groupcc.ops._cpp.launch import _C, contiguous, empty, threads, widened
from groupcc.ops._cpp.launch import why_not as unsupported
from groupcc.ops.group_decode_loss import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    acts, W_dec, target = widened(args.acts_NK), args.W_dec_LGD.contiguous(), args.target_NGD.contiguous()
    latents = acts, args.indices_NK.contiguous(), args.poses_NK.contiguous(), pose_table(args.group), W_dec
    (N, K), D = acts.shape, W_dec.shape[2]
    residual = empty(tuple(target.shape), W_dec.dtype)
    dots_NK, column_sums = acts.new_empty(N if args.need_acts else 0, K), acts.new_empty(D if args.need_bias else 0)
    needed = dots_NK if args.need_acts else None, column_sums if args.need_bias else None
    loss = _C.group_decode_loss(*latents, contiguous(args.b_dec_1D), target, residual, *needed, threads())
    return acts.new_tensor(loss), residual, dots_NK, column_sums


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad, _, acts_NK, indices, poses, W_dec, dots_NK, column_sums, need_acts, need_bias, group = args
    acts = acts_NK.to(torch.promote_types(acts_NK.dtype, torch.float32))
    scale = acts.new_ones(()) if args.scale is None else args.scale.to(acts.dtype)
    if (need_acts and dots_NK is None) or (need_bias and column_sums is None):
        dots_NK, column_sums = dots(grad, indices, poses, W_dec, group, need_bias)
    d_W_dec = sums(grad, acts * scale, indices, poses, len(W_dec), group)
    (_, K), D = acts.shape, W_dec.shape[2]
    d_acts = acts.new_empty(0, K) if not need_acts or dots_NK is None else dots_NK * scale
    d_b_dec = acts.new_empty(0, D) if not need_bias or column_sums is None else (column_sums * scale)[None]
    return d_acts.to(acts_NK.dtype), d_W_dec, d_b_dec.to(W_dec.dtype)
