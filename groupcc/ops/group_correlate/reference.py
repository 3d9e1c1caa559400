"""group_correlate as the direct sum: acts [N, G, D], W [L, G, D] → z [N, L, G]."""

from __future__ import annotations

import torch

__all__ = ["group_correlate_reference"]


def group_correlate_reference(
    acts_NGD: torch.Tensor, W_LGD: torch.Tensor, right_translation_HG: torch.Tensor
) -> torch.Tensor:
    """See `groupcc.ops.group_correlate`."""
    flat = acts_NGD.flatten(1)
    # One element at a time: all translates of W together are |G| times its size.
    return torch.stack([flat @ W_LGD[:, translate].flatten(1).t() for translate in right_translation_HG], dim=2)
