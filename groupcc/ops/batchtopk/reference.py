"""batchtopk in plain PyTorch: pre_acts [N, L] → mask [N, L] of the N·k largest."""

from __future__ import annotations

import torch

__all__ = ["batchtopk_reference"]


def batchtopk_reference(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.batchtopk`."""
    N = pre_acts_NL.shape[0]
    with torch.no_grad():
        flat = pre_acts_NL.flatten()
        count = N * k
        if N == 0:
            return pre_acts_NL.relu(), pre_acts_NL.new_zeros(())
        threshold = torch.topk(flat, count, sorted=True).values[-1]
        above = flat > threshold
        # Equals fill what is left from the lowest flat index up.
        equal = (flat == threshold).nonzero().flatten()[: count - int(above.sum())]
        above[equal] = True
        mask = above.view_as(pre_acts_NL)
    return torch.relu(pre_acts_NL * mask), torch.relu(threshold)
