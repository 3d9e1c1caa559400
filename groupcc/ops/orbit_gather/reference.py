"""orbit_gather in plain PyTorch: maps [B, S, H, W, D], points [G, P, 2] → [B·P, G, D]."""

from __future__ import annotations

import torch

__all__ = ["orbit_gather_reference", "sampling_taps"]


def orbit_gather_reference(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> torch.Tensor:
    """See `groupcc.ops.orbit_gather`. Accumulates in at least fp32."""
    B, S, H, W, D = maps_BSHWD.shape
    G, P, _ = points_GP2.shape
    index_GPT, weight_GPT = sampling_taps(points_GP2.double().cpu(), H, W, interpolation)
    index_GPT = index_GPT.to(maps_BSHWD.device)
    compute = torch.promote_types(maps_BSHWD.dtype, torch.float32)
    weight_GPT = weight_GPT.to(maps_BSHWD.device, compute)
    pixels = maps_BSHWD.reshape(B, S, H * W, D)
    blocks = []
    for g in range(G):
        source = pixels[:, g if S > 1 else 0]
        block = torch.zeros(B, P, D, dtype=compute, device=maps_BSHWD.device)
        for t in range(index_GPT.shape[2]):
            block = block + weight_GPT[g, :, t, None] * source[:, index_GPT[g, :, t]].to(compute)
        blocks.append(block)
    return torch.stack(blocks, dim=2).reshape(B * P, G, D).to(maps_BSHWD.dtype)


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
