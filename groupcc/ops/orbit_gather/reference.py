"""orbit_gather in plain PyTorch: maps [B, S, H, W, D], points [G, P, 2] → [B·P, G, D]."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["orbit_gather_reference", "sampling_taps"]


def orbit_gather_reference(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> torch.Tensor:
    """See `groupcc.ops.orbit_gather`. Accumulates in at least fp32."""
    B, S, H, W, D = maps_BSHWD.shape
    G, P, _ = points_GP2.shape
    index_GPT, weight_GPT = sampling_taps(points_GP2.double().cpu(), H, W, interpolation)
    compute = torch.promote_types(maps_BSHWD.dtype, torch.float32)
    element_S = torch.arange(G) if S > 1 else torch.zeros(G, dtype=torch.int64)
    map_BG = torch.arange(B)[:, None] * S + element_S
    index_BPGT = map_BG[:, None, :, None] * (H * W) + index_GPT.transpose(0, 1)
    weight_BPGT = weight_GPT.transpose(0, 1).expand(B, P, G, -1)
    T = index_BPGT.shape[-1]
    # embedding_bag sums weighted rows of a table: here the taps of each point, out of all maps' pixels.
    acts = F.embedding_bag(
        index_BPGT.reshape(-1, T).to(maps_BSHWD.device),
        maps_BSHWD.reshape(-1, D).to(compute),
        mode="sum",
        per_sample_weights=weight_BPGT.reshape(-1, T).to(maps_BSHWD.device, compute),
    )
    return acts.view(B * P, G, D).to(maps_BSHWD.dtype)


def sampling_taps(points_GP2: torch.Tensor, H: int, W: int, interpolation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels that each point reads and their weights: index int64 [G, P, T] into H·W, weight float64 [G, P, T].

    T = 4 for bilinear, 9 for the quadratic B-spline. Coordinates within 1e-6 of a pixel count as on it, so that
    rounding in the group's matrices never turns a copy into an interpolation. A tap of weight 0 outside the map is
    read at the border instead.
    """
    rounded = points_GP2.round()
    points = torch.where((points_GP2 - rounded).abs() < 1e-6, rounded, points_GP2)
    if interpolation == "bilinear":
        base = points.floor()
        fraction = points - base
        weights_axis = torch.stack([1 - fraction, fraction], dim=-1)  # [G, P, 2 (axis), taps]
        steps = torch.arange(2)
    else:
        base = (points + 0.5).floor() - 1
        offset = points - (base + 1)  # from the nearest pixel, in [-0.5, 0.5)
        weights_axis = torch.stack([(0.5 - offset) ** 2 / 2, 0.75 - offset**2, (0.5 + offset) ** 2 / 2], dim=-1)
        steps = torch.arange(3)
    taps = base.long()[..., None] + steps  # [G, P, 2, taps]
    x = taps[:, :, 0].clamp(0, W - 1)
    y = taps[:, :, 1].clamp(0, H - 1)
    index = y[:, :, :, None] * W + x[:, :, None, :]
    weight = weights_axis[:, :, 1, :, None] * weights_axis[:, :, 0, None, :]
    return index.flatten(2), weight.flatten(2)
