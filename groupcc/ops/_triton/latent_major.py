"""The active entries of a batch in latent-major order: which examples each latent fired on."""

from __future__ import annotations

from typing import NamedTuple

import torch


class LatentMajor(NamedTuple):
    """Entry e = n·K + k of latent l stands at `order[starts[l]:starts[l + 1]]`, in rising order of e."""

    order: torch.Tensor
    """int64 [N·K]: entries sorted by latent, then by e; dropped ones last."""
    starts: torch.Tensor
    """int64 [L + 1]; `starts[L]` is the number of entries kept."""


def latent_major(indices: torch.Tensor, L: int, keep: torch.Tensor | None = None) -> LatentMajor:
    """Sorts the entries of `indices` (int64 [N, K], values in [0, L)) by latent, on any device.

    Entries where `keep` (bool [N, K]) is False belong to no latent. The sort is stable, so sums over a latent's entries
    have one order: deterministic. Nothing waits for the device.
    """
    # Radix sorts on the GPU take a pass for each byte of the key, so the key is narrow.
    keys = indices.flatten().to(torch.int32 if L < 2**31 else torch.int64)
    if keep is not None:
        keys = keys.masked_fill(~keep.flatten(), L)
    keys, order = torch.sort(keys, stable=True)
    latents = torch.arange(L + 1, dtype=keys.dtype, device=keys.device)
    return LatentMajor(order, torch.searchsorted(keys, latents))
