"""What the ops on translated blocks share: their checks, and the same sums over single blocks."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups.translate import translation_table

__all__ = ["check_blocks", "check_poses", "single_blocks"]


def check_blocks(name: str, W: torch.Tensor, like: torch.Tensor, group: Group) -> None:
    """`W` is [L, G, D] in the dtype and, but for L, the shape of `like` [N, G, D], or ArgumentError."""
    if W.dim() != 3 or W.shape[1] != group.order or W.shape[1:] != like.shape[1:] or W.dtype != like.dtype:
        raise argument_error(
            name,
            expected=f"{like.dtype} of shape [L, G, D] = [L, {group.order}, {like.shape[-1]}]",
            got=f"{W.dtype} of shape {tuple(W.shape)}",
            remedy="One block for each element of the group, as wide as the activations and in their dtype.",
        )


def check_poses(poses: torch.Tensor, indices: torch.Tensor) -> None:
    """`poses` is int64 in the shape of `indices` [N, K], int64 too, or ArgumentError."""
    for name, value in (("indices", indices), ("poses", poses)):
        if value.dtype != torch.int64 or value.dim() != 2 or value.shape != indices.shape:
            raise argument_error(
                name,
                expected="int64 [N, K], indices and poses alike",
                got=f"{value.dtype} of shape {tuple(value.shape)}",
                remedy="Pass the base latents and the poses that a tied crosscoder's encode returns.",
            )


def single_blocks(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, poses_NK: torch.Tensor, W_LGD: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """acts and indices [N·G, K] of N·G examples of one block, over a dictionary [L·G, 1, D], with the same decode."""
    N, K = acts_NK.shape
    L, G, D = W_LGD.shape
    block_NKG = translation_table(group, W_LGD.device)[poses_NK] + G * indices_NK[:, :, None]
    acts_NGK = acts_NK[:, None].expand(N, G, K)
    return acts_NGK.reshape(N * G, K), block_NKG.transpose(1, 2).reshape(N * G, K), W_LGD.reshape(L * G, 1, D)
