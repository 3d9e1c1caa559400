"""Launches csrc/group_encode_at.cpp for group_encode_at and for the gradients of group_decode_loss."""

from __future__ import annotations

from functools import lru_cache

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.launch import _C, empty, threads, widened


@lru_cache(maxsize=32)
def pose_table(group: Group, inverse: bool = False) -> torch.Tensor:
    """int32 [G, G]: row h holds gh, or gh⁻¹, at g."""
    rows = group.right_translation[group.inverse] if inverse else group.right_translation
    return torch.from_numpy(rows.copy()).to(torch.int32)


def dots(
    x_NGD: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    W_LGD: torch.Tensor,
    group: Group,
    need_sums: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Σ_g ⟨x[n, g], W[index, g·pose]⟩ [N, K] and, where asked for, Σ_n Σ_g x [D]; both in the type of sums."""
    x, W, indices, poses = x_NGD.contiguous(), W_LGD.contiguous(), indices_NK.contiguous(), poses_NK.contiguous()
    wide = torch.promote_types(W.dtype, torch.float32)
    out = torch.empty(indices.shape, dtype=wide, device="cpu")
    column_sums = torch.empty(W.shape[2], dtype=wide, device="cpu") if need_sums else None
    _C.group_encode_at(x, indices, poses, pose_table(group), W, out, column_sums, threads())
    return out, column_sums


def sums(
    x_NGD: torch.Tensor, acts_NK: torch.Tensor, indices_NK: torch.Tensor, poses_NK: torch.Tensor, L: int, group: Group
) -> torch.Tensor:
    """d_W [L, G, D]: Σ over a latent's entries of act · x[n, g·pose⁻¹], in the dtype of x."""
    x, acts = x_NGD.contiguous(), widened(acts_NK)
    indices, poses = indices_NK.contiguous(), poses_NK.contiguous()
    d_W = empty((L, *x.shape[1:]), x.dtype)
    _C.group_encode_at_backward(x, acts, indices, poses, pose_table(group, inverse=True), d_W, threads())
    return d_W
