"""What the launchers of csrc/group_decode.cpp share."""

from __future__ import annotations

from functools import lru_cache

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.decode import address, widened
from groupcc.ops._cpp.launch import _C, DTYPES, empty, threads

__all__ = ["dots", "pose_table", "sums"]


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
    (N, K), (L, G, D) = indices.shape, W.shape
    wide = torch.promote_types(W.dtype, torch.float32)
    out = torch.empty(N, K, dtype=wide, device="cpu")
    column_sums = torch.empty(D, dtype=wide, device="cpu") if need_sums else None
    _C.group_dots(
        x.data_ptr(),
        indices.data_ptr(),
        poses.data_ptr(),
        pose_table(group).data_ptr(),
        W.data_ptr(),
        out.data_ptr(),
        address(column_sums),
        N,
        K,
        L,
        G,
        D,
        DTYPES[W.dtype],
        threads(),
    )
    return out, column_sums


def sums(
    x_NGD: torch.Tensor, acts_NK: torch.Tensor, indices_NK: torch.Tensor, poses_NK: torch.Tensor, L: int, group: Group
) -> torch.Tensor:
    """d_W [L, G, D]: Σ over a latent's entries of act · x[n, g·pose⁻¹], in the dtype of x."""
    x, acts = x_NGD.contiguous(), widened(acts_NK)
    indices, poses = indices_NK.contiguous(), poses_NK.contiguous()
    (N, K), (_, G, D) = indices.shape, x.shape
    d_W = empty((L, G, D), x.dtype)
    _C.group_sums(
        x.data_ptr(),
        acts.data_ptr(),
        indices.data_ptr(),
        poses.data_ptr(),
        pose_table(group, inverse=True).data_ptr(),
        d_W.data_ptr(),
        N,
        K,
        L,
        G,
        D,
        DTYPES[x.dtype],
        threads(),
    )
    return d_W
