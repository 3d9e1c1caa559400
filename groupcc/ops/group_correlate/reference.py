"""group_correlate as the direct sum: acts [N, G, D], W [L, G, D] → z [N, L, G]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.groups.translate import translation_table

__all__ = ["Args", "group_correlate_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.group_correlate`."""

    acts_NGD: torch.Tensor
    W_LGD: torch.Tensor
    group: Group


def group_correlate_reference(args: Args) -> torch.Tensor:
    """See `groupcc.ops.group_correlate`."""
    flat, table_HG = args.acts_NGD.flatten(1), translation_table(args.group, args.acts_NGD.device)
    # One element at a time: all translates of W together are |G| times its size.
    return torch.stack([flat @ args.W_LGD[:, translate].flatten(1).t() for translate in table_HG], dim=2)
