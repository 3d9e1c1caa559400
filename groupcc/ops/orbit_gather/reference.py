"""orbit_gather in plain PyTorch: maps [B, S, H, W, D], points [G, P, 2] → [B·P, G, D]."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F

from groupcc.ops.orbit_gather.taps import sampling_taps

__all__ = ["Args", "orbit_gather_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.orbit_gather`."""

    maps_BSHWD: torch.Tensor
    points_GP2: torch.Tensor
    interpolation: str


def orbit_gather_reference(args: Args) -> torch.Tensor:
    """See `groupcc.ops.orbit_gather`. Accumulates in at least fp32."""
    maps_BSHWD, points_GP2, interpolation = args
    B, S, H, W, D = maps_BSHWD.shape
    G, P, _ = points_GP2.shape
    if B * P * G * D == 0:
        return maps_BSHWD.flatten()[:0].reshape(B * P, G, D)
    index_GPT, weight_GPT = sampling_taps(points_GP2.cpu(), H, W, interpolation)
    T = index_GPT.shape[-1]
    compute = torch.promote_types(maps_BSHWD.dtype, torch.float32)
    element_S = torch.arange(G) if S > 1 else torch.zeros(G, dtype=torch.int64)
    map_BG = torch.arange(B)[:, None] * S + element_S
    index = (map_BG[:, None, :, None] * (H * W) + index_GPT.transpose(0, 1)).flatten()
    weight = weight_GPT.transpose(0, 1).expand(B, P, G, T).flatten()
    # embedding_bag sums weighted rows of a table: here the taps of each point, out of all maps' pixels. Taps of weight
    # 0 go behind all others, into a bag of their own: in a sum, 0 times an infinity would be NaN.
    order = (weight == 0).to(torch.uint8).argsort(stable=True)
    ends = (weight.view(-1, T) != 0).sum(1).cumsum(0)
    acts = F.embedding_bag(
        index[order].to(maps_BSHWD.device),
        maps_BSHWD.reshape(-1, D).to(compute),
        F.pad(ends, (1, 0)).to(maps_BSHWD.device),
        mode="sum",
        per_sample_weights=weight[order].to(maps_BSHWD.device, compute),
    )
    return acts[:-1].reshape(B * P, G, D).to(maps_BSHWD.dtype)
