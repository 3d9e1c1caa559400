"""pose_maxima in plain PyTorch: z [N, L, G], near [L, G] → poses taken and their z, [N, count]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group

__all__ = ["Args", "pose_maxima_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.pose_maxima`."""

    z_NLG: torch.Tensor
    near_LG: torch.Tensor
    group: Group
    n_poses: int


def pose_maxima_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.pose_maxima`."""
    z_NLG, near_LG, group, count = args
    left_NLG = z_NLG.clone(memory_format=torch.contiguous_format)
    best_NL = left_NLG.amax(2)
    # Pose h strikes out h' where h⁻¹h' is near.
    between = torch.from_numpy(group.cayley[group.inverse]).to(near_LG.device)
    struck_LGG = near_LG[:, between]
    rows = torch.arange(len(z_NLG), device=z_NLG.device)
    taken, values = [], []
    for _ in range(count):
        value_N, l_N = best_NL.max(1)
        poses_NG = left_NLG[rows, l_N]
        h_N = poses_NG.max(1).indices
        taken.append(l_N * group.order + h_N)
        values.append(value_N)
        poses_NG.masked_fill_(struck_LGG[l_N, h_N], float("-inf"))
        left_NLG[rows, l_N] = poses_NG
        best_NL[rows, l_N] = poses_NG.amax(1)
    return torch.stack(taken, 1), torch.stack(values, 1)
