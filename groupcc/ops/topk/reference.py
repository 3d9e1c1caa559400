"""topk in plain PyTorch: pre_acts [N, L] → acts [N, K], indices [N, K]."""

from __future__ import annotations

import torch

__all__ = ["topk_reference"]


def topk_reference(pre_acts_NL: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.topk`."""
    L = pre_acts_NL.shape[1]
    with torch.no_grad():
        # One more than asked for: where it equals the k-th, torch.topk's choice among equals is arbitrary.
        values, indices = torch.topk(pre_acts_NL, min(k + 1, L), dim=1)
        if k < L:
            tied = (values[:, k] == values[:, k - 1]).nonzero().flatten()
            values, indices = values[:, :k], indices[:, :k].contiguous()
            if tied.numel():
                indices[tied] = torch.sort(pre_acts_NL[tied], dim=1, descending=True, stable=True).indices[:, :k]
        indices = indices.sort(dim=1).values
        order = pre_acts_NL.gather(1, indices).sort(dim=1, descending=True, stable=True).indices
        indices = indices.gather(1, order)
    return torch.relu(pre_acts_NL.gather(1, indices)), indices
