"""The taps of all points as one table on the device, kept between calls: training samples at the same points."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from groupcc.ops.orbit_gather.taps import sampling_taps

__all__ = ["TapTable", "tap_table", "too_large"]

_KEPT = 8
_tables: OrderedDict[tuple[Any, ...], tuple[torch.Tensor, int, TapTable]] = OrderedDict()


@dataclass(frozen=True)
class TapTable:
    """Row p·G + g: which of an image's S·H·W pixels element g's sample at position p reads, and their weights.

    `index` int32 [P·G, T], `weight` [P·G, T] in fp32 (fp64 for fp64 maps), `pixels` = S·H·W.
    """

    index: torch.Tensor
    weight: torch.Tensor
    pixels: int

    @cached_property
    def inverse(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Which rows read a pixel: int32 `start` [pixels + 1], int32 `row` and `weight` [P·G·T], by pixel and then row.

        Pixel i is read by entries start[i] to start[i + 1]. Taps of weight 0 lie behind start[pixels].
        """
        T = self.index.shape[1]
        pixel = torch.where(self.weight == 0, self.pixels, self.index).flatten()
        pixel, order = pixel.sort(stable=True)
        start = torch.searchsorted(pixel, torch.arange(self.pixels + 1, dtype=torch.int32, device=pixel.device))
        return start.int(), (order // T).int(), self.weight.flatten()[order]


def tap_table(
    points_GP2: torch.Tensor, S: int, H: int, W: int, interpolation: str, weights: torch.dtype, device: torch.device
) -> TapTable:
    """The table for these points and S maps an image, each H × W; ArgumentError where `sampling_taps` has it.

    The last few tables are kept: making one takes many small kernels, more time than a gather on a GPU.
    """
    key = (S, H, W, interpolation, weights, device, points_GP2.device, points_GP2.dtype, points_GP2.shape)
    version = 0 if points_GP2.is_inference() else points_GP2._version
    if key in _tables:
        points, at_version, table = _tables[key]
        if _same(points, at_version, points_GP2, version):
            _tables.move_to_end(key)
            return table
    table = _made(points_GP2, S, H, W, interpolation, weights, device)
    kept = points_GP2.detach()
    if points_GP2.device.type == "cpu" or points_GP2.is_inference():
        kept = kept.clone()
    _tables[key] = (kept, version, table)
    while len(_tables) > _KEPT:
        _tables.popitem(last=False)
    return table


def too_large(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor) -> str | None:
    """Why int32 cannot number the pixels and taps of these, or None."""
    _, S, H, W, _ = maps_BSHWD.shape
    taps = points_GP2.shape[0] * points_GP2.shape[1] * 9
    if max(S * H * W, taps) < 2**31:
        return None
    return f"pixels of an image ({S * H * W}) and taps ({taps}) must number less than 2^31"


def _same(kept: torch.Tensor, at_version: int, points: torch.Tensor, version: int) -> bool:
    """Whether points equal those kept: on the CPU by value, elsewhere, where looking would wait, by memory.

    `kept` holds its memory, so nothing else can come to lie there; writes to it raise its version.
    """
    if points.device.type == "cpu":
        return torch.equal(kept, points)
    return kept.data_ptr() == points.data_ptr() and kept.stride() == points.stride() and version == at_version


def _made(
    points_GP2: torch.Tensor, S: int, H: int, W: int, interpolation: str, weights: torch.dtype, device: torch.device
) -> TapTable:
    G, P, _ = points_GP2.shape
    index_GPT, weight_GPT = sampling_taps(points_GP2, H, W, interpolation)
    if S > 1:
        index_GPT = index_GPT + torch.arange(G, device=index_GPT.device)[:, None, None] * (H * W)
    T = index_GPT.shape[-1]
    index = index_GPT.transpose(0, 1).reshape(P * G, T).to(device, torch.int32)
    weight = weight_GPT.transpose(0, 1).reshape(P * G, T).to(device, weights)
    return TapTable(index, weight, S * H * W)
