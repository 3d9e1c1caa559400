"""group_correlate_max in plain PyTorch: acts [N, G, D], W [L, G, D], b [L] → values, poses int64 [N, L]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops.group_correlate import group_correlate

__all__ = ["Args", "group_correlate_max_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.group_correlate_max`, and whether coefficients are to be kept for the gradients."""

    acts_NGD: torch.Tensor
    W_LGD: torch.Tensor
    b_L: torch.Tensor
    group: Group
    keep: bool


def group_correlate_max_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.group_correlate_max`. z [N, L, G] exists here, by whatever backend is in force."""
    values, poses = (group_correlate(args.acts_NGD, args.W_LGD, args.group) + args.b_L[:, None]).max(2)
    return values, poses
