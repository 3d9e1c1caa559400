"""group_decode_loss in plain PyTorch: acts, indices, poses [N, K], W_dec [L, G, D], target → loss, residual."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops._single_blocks import single_blocks
from groupcc.ops.decode_loss import decode_loss

__all__ = ["Args", "group_decode_loss_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.group_decode_loss`, and which gradients of the loss are to be prepared."""

    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    poses_NK: torch.Tensor
    W_dec_LGD: torch.Tensor
    b_dec_1D: torch.Tensor | None
    target_NGD: torch.Tensor
    group: Group
    need_acts: bool
    need_bias: bool


def group_decode_loss_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.group_decode_loss`: `decode_loss` of N·G examples of one block, on the backend in force."""
    acts, indices, poses, W_dec, b_dec, target, group, *_ = args
    blocks = single_blocks(acts, indices, poses, W_dec, group)
    error, residual = decode_loss(*blocks, b_dec, target.flatten(0, 1)[:, None])
    return error.sum(), residual.view_as(target)
