"""Base latents in poses as latents of single blocks, for the ops that know no poses."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.groups.translate import translation_table

__all__ = ["single_blocks"]


def single_blocks(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, poses_NK: torch.Tensor, W_LGD: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """acts and indices [N·G, K] of N·G examples of one block, over a dictionary [L·G, 1, D], with the same decode."""
    N, K = acts_NK.shape
    L, G, D = W_LGD.shape
    block_NKG = translation_table(group, W_LGD.device)[poses_NK] + G * indices_NK[:, :, None]
    acts_NGK = acts_NK[:, None].expand(N, G, K)
    return acts_NGK.reshape(N * G, K), block_NKG.transpose(1, 2).reshape(N * G, K), W_LGD.reshape(L * G, 1, D)
