"""batchtopk in plain PyTorch: pre_acts [N, L] → acts [N, K], indices [N, K], threshold []."""

from __future__ import annotations

import torch

from groupcc.ops.topk.reference import Args, positive_part

__all__ = ["Args", "batchtopk_reference"]


def batchtopk_reference(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """See `groupcc.ops.batchtopk`."""
    pre_acts_NL, k = args
    N, L = pre_acts_NL.shape
    if N == 0:
        acts = pre_acts_NL[:, :1].clone()
        return acts, acts.new_empty(0, 1, dtype=torch.int64), acts.new_zeros(())
    flat = pre_acts_NL.flatten()
    with torch.no_grad():
        chosen, threshold = _chosen(flat, N * k)
        chosen = chosen[~(flat[chosen] <= 0)]  # what the ReLU leaves
        # By row, within it by falling value, within that by index: three stable sorts, the last key first.
        chosen = chosen[flat[chosen].sort(descending=True, stable=True).indices]
        chosen = chosen[(chosen // L).sort(stable=True).indices]
        row = chosen // L
        count_N = torch.bincount(row, minlength=N)
        slot = torch.arange(row.numel(), device=row.device) - (count_N.cumsum(0) - count_N)[row]
        shape = (N, max(int(count_N.max()), 1))
        indices = chosen.new_zeros(shape).index_put((row, slot), chosen % L)
    acts = flat.new_zeros(shape).index_put((row, slot), positive_part(flat[chosen]))
    return acts, indices, positive_part(threshold)


def _chosen(flat: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rising flat indices of the `count` largest, equals by lower index, and the smallest of them."""
    threshold = torch.topk(flat, count).values[-1]
    if threshold.isnan():
        above, equal = torch.zeros_like(flat, dtype=torch.bool), flat.isnan()
    else:
        above, equal = (flat > threshold) | flat.isnan(), flat == threshold
    # Equals fill what is left from the lowest flat index up.
    above[equal.nonzero().flatten()[: count - int(above.sum())]] = True
    return above.nonzero().flatten(), threshold
