"""Small nets and pictures for the tests of views, harvesting and what uses them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn


class TinyNet(nn.Module):
    """Two strided convolutions with fixed random weights and no symmetry: `body` has stride 4, offset 1, field 13."""

    def __init__(self, channels: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.first = nn.Conv2d(3, 8, 5, stride=2, padding=1)
        self.second = nn.Conv2d(8, channels, 5, stride=2, padding=2)
        self.body = nn.ReLU()
        self.unused = nn.Conv2d(channels, 2, 1)
        self.shared = nn.ReLU()
        self.head = nn.Linear(channels, 3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(float(os.environ.get("TINY_NET_DELAY", "0")))
        x = self.body(self.second(self.shared(self.first(x))))
        return self.head(self.shared(x).mean((2, 3)))


def unbiased_net() -> TinyNet:
    """A `TinyNet` without biases: the values of its body spread as much as they are large, by some thousandths."""
    net = TinyNet()
    for layer in (net.first, net.second):
        nn.init.zeros_(layer.bias)
    return net


class Filter(nn.Module):
    """One fixed kernel: stride and padding decide where its output pixels lie.

    On the mean of the channels, or on each (`separate`); then as it is, its magnitude, or its two signs apart.
    """

    def __init__(
        self,
        kernel: Tensor,
        *,
        stride: int = 1,
        padding: int = 0,
        separate: bool = False,
        rectify: str | None = None,
    ) -> None:
        super().__init__()
        weight = kernel.expand(3, 1, *kernel.shape) if separate else kernel.expand(1, 3, *kernel.shape) / 3
        self.conv = nn.Conv2d(
            3,
            len(weight),
            kernel.shape[0],
            stride=stride,
            padding=padding,
            groups=3 if separate else 1,
            bias=False,
        )
        self.conv.weight.data.copy_(weight)
        self.out = nn.Identity()
        self.rectify = rectify

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.rectify == "magnitude":
            x = x.abs()
        elif self.rectify == "both signs":
            x = torch.cat([x.relu(), (-x).relu()], 1)
        return self.out(x)


def gaussian(radius: int, sigma: float) -> Tensor:
    """A normalised Gaussian kernel of side 2·radius + 1."""
    axis = torch.arange(-radius, radius + 1.0, dtype=torch.float64)
    kernel = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * sigma**2))
    return (kernel / kernel.sum()).float()


def noise(count: int, side: int, seed: int = 0) -> Tensor:
    """White noise images [count, 3, side, side] in [0, 1]."""
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def smooth_noise(count: int, side: int, sigma: float, seed: int = 0) -> Tensor:
    """Noise without the highest frequencies, so that turning it loses little."""
    radius = int(4 * sigma)
    values = noise(count, side + 2 * radius, seed)
    return nn.functional.conv2d(values, gaussian(radius, sigma).expand(3, 1, -1, -1), groups=3)


def write_photographs(folder: Path, count: int, side: int = 96) -> None:
    """PNG files photo-00.png, photo-01.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (side, side + 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photo-{index:02d}.png")
