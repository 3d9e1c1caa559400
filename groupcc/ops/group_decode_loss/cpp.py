"""Launches csrc/group_decode_loss.cpp: acts, indices, poses [N, K], W_dec [L, G, D], target → loss, residual."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.decode import contiguous, widened
from groupcc.ops._cpp.group_decode import dots, pose_table, sums
from groupcc.ops._cpp.launch import _C, empty, threads, why_not

__all__ = ["backward", "forward", "unsupported"]


def unsupported(
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    b_dec_1D: torch.Tensor | None,
    target_NGD: torch.Tensor,
    group: Group,
) -> str | None:
    return why_not(acts_NK, indices_NK, poses_NK, W_dec_LGD, target_NGD, *([] if b_dec_1D is None else [b_dec_1D]))


def forward(
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    b_dec_1D: torch.Tensor | None,
    target_NGD: torch.Tensor,
    group: Group,
    need_acts: bool,
    need_bias: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, residual, and what gradients begin with: its inner products with the latents as they stand [N, K], and its
    sum over examples and blocks [D], both in the type of sums and of no elements unless needed."""
    acts, indices, poses = widened(acts_NK), indices_NK.contiguous(), poses_NK.contiguous()
    W_dec, target = W_dec_LGD.contiguous(), target_NGD.contiguous()
    b_dec = contiguous(b_dec_1D)
    (N, K), D = acts.shape, W_dec.shape[2]
    residual = empty(tuple(target.shape), W_dec.dtype)
    answers, column_sums = acts.new_empty(N if need_acts else 0, K), acts.new_empty(D if need_bias else 0)
    needed = answers if need_acts else None, column_sums if need_bias else None
    table = pose_table(group)
    loss = _C.group_decode_loss(acts, indices, poses, table, W_dec, b_dec, target, residual, *needed, threads())
    return acts.new_tensor(loss), residual, answers, column_sums


def backward(
    grad_NGD: torch.Tensor,
    scale: torch.Tensor | None,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    answers_NK: torch.Tensor | None,
    column_sums_D: torch.Tensor | None,
    need_acts: bool,
    need_bias: bool,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """d_acts, d_W_dec, d_b_dec; `answers` and `column_sums` are those of grad, where known."""
    acts = widened(acts_NK)
    scale = acts.new_ones(()) if scale is None else scale.to(acts.dtype)
    if (need_acts and answers_NK is None) or (need_bias and column_sums_D is None):
        answers_NK, column_sums_D = dots(grad_NGD, indices_NK, poses_NK, W_dec_LGD, group, need_bias)
    d_W_dec = sums(grad_NGD, acts * scale, indices_NK, poses_NK, len(W_dec_LGD), group)
    (_, K), D, dtype = acts.shape, W_dec_LGD.shape[2], W_dec_LGD.dtype
    d_acts = acts.new_empty(0, K) if not need_acts or answers_NK is None else answers_NK * scale
    d_b_dec = acts.new_empty(0, D) if not need_bias or column_sums_D is None else (column_sums_D * scale)[None]
    return d_acts.to(acts_NK.dtype), d_W_dec, d_b_dec.to(dtype)
