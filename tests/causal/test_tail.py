"""The network after a layer: what later layers gave is read before an in-place operation overwrites their output."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import groupcc
from groupcc.causal.tail import Tail


class Chain(nn.Module):
    """Two layers, each with an operation after it that overwrites its output, and a pooled output."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.layer = nn.Conv2d(3, 3, 3, bias=False)
        self.second = nn.Conv2d(3, 4, 1, bias=False)
        self.after = after
        for conv in (self.layer, self.second):
            conv.weight.data = torch.randn(conv.weight.shape, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.second(self.after(self.layer(x)))).mean((2, 3))


class AddsInPlace(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(1.0)


@pytest.mark.parametrize("after", [nn.ReLU(inplace=True), AddsInPlace(), nn.Hardtanh(inplace=True)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_later_layers_are_read_before_they_are_overwritten(after, dtype):
    net = Chain(after).to(dtype).eval()
    view = groupcc.LayerView.open(net, "layer", "C4", input_size=17)
    inputs = torch.randn(1, 3, 17, 17, generator=torch.Generator().manual_seed(1), dtype=dtype)
    maps = torch.randn(2, 15, 15, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    kept = maps.clone()
    read = Tail(view, ["layer", "second"])(inputs, maps)
    put = kept.permute(0, 3, 1, 2)
    before = nn.functional.conv2d(after(put.clone()), net.second.weight.data)
    torch.testing.assert_close(read["layer"], put.flatten(1).double())
    torch.testing.assert_close(read["second"], before.flatten(1).double())
    after_it = after(before.clone())
    assert not torch.equal(after_it, before)
    torch.testing.assert_close(read["output"], after_it.mean((2, 3)).double())
