"""Launches csrc/group_encode_at.cpp: x [N, G, D], W_enc [L, G, D], indices, poses [N, K] → acts [N, K]."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.group_decode import dots, sums
from groupcc.ops._cpp.launch import why_not

__all__ = ["backward", "forward", "slower", "unsupported"]

SPARSE_UP_TO = 1.0
"""Chosen poses an example, for each base latent, up to which the sparse gradient costs less: at most a third of
group_correlate forward and backward under D8 to D32 (`groupcc bench --only group_encode_at`)."""


def slower(
    x_NGD: torch.Tensor,
    W_enc_LGD: torch.Tensor,
    b_enc_L: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    known_NK: torch.Tensor | None,
    group: Group,
) -> str | None:
    if indices_NK.shape[1] <= SPARSE_UP_TO * len(W_enc_LGD):
        return None
    return f"above {SPARSE_UP_TO:g} chosen poses for each base latent, gradients to all of them cost less"


def unsupported(
    x_NGD: torch.Tensor,
    W_enc_LGD: torch.Tensor,
    b_enc_L: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    known_NK: torch.Tensor | None,
    group: Group,
) -> str | None:
    return why_not(x_NGD, W_enc_LGD, b_enc_L, indices_NK, poses_NK)


def forward(
    x_NGD: torch.Tensor,
    W_enc_LGD: torch.Tensor,
    b_enc_L: torch.Tensor,
    indices_NK: torch.Tensor,
    poses_NK: torch.Tensor,
    group: Group,
) -> torch.Tensor:
    pre_NK, _ = dots(x_NGD, indices_NK, poses_NK, W_enc_LGD, group, need_sums=False)
    return torch.relu(pre_NK + b_enc_L[indices_NK]).to(x_NGD.dtype)


def backward(
    grad_NK: torch.Tensor, x_NGD: torch.Tensor, indices_NK: torch.Tensor, poses_NK: torch.Tensor, L: int, group: Group
) -> tuple[torch.Tensor, torch.Tensor]:
    d_W_enc = sums(x_NGD, grad_NK, indices_NK, poses_NK, L, group)
    wide = torch.promote_types(grad_NK.dtype, torch.float32)
    d_b_enc = torch.zeros(L, dtype=wide, device="cpu")
    d_b_enc.index_add_(0, indices_NK.flatten(), grad_NK.flatten().to(wide))
    return d_W_enc, d_b_enc.to(x_NGD.dtype)
