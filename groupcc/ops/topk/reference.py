"""topk in plain PyTorch: pre_acts [N, L] → acts [N, k], indices [N, k]."""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["Args", "positive_part", "topk_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.topk`."""

    pre_acts_NL: torch.Tensor
    k: int


def topk_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.topk`."""
    pre_acts_NL, k = args
    L = pre_acts_NL.shape[1]
    with torch.no_grad():
        # One more than asked for: where it equals the k-th, torch.topk's choice among equals is arbitrary.
        values, indices = torch.topk(pre_acts_NL, min(k + 1, L), dim=1)
        if k < L:
            last, after = values[:, k - 1], values[:, k]
            tied = ((last == after) | after.isnan()).nonzero().flatten()
            indices = indices[:, :k].contiguous()
            if tied.numel():
                indices[tied] = torch.sort(pre_acts_NL[tied], dim=1, descending=True, stable=True).indices[:, :k]
        indices = indices.sort(dim=1).values
        order = pre_acts_NL.gather(1, indices).sort(dim=1, descending=True, stable=True).indices
        indices = indices.gather(1, order)
    return positive_part(pre_acts_NL.gather(1, indices)), indices


def positive_part(x: torch.Tensor) -> torch.Tensor:
    """ReLU with its edges fixed: NaN stays NaN, −0 gives +0, and gradient passes where x > 0 alone."""
    return torch.where(x > 0, x, torch.where(x.isnan(), x.detach(), 0.0))
