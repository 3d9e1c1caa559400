"""Networks and dictionaries whose causal truth is known: two shapes in all their poses under D4, a channel a pose."""

from __future__ import annotations

import torch
from torch import nn

import groupcc

SHAPES = 2
D4 = groupcc.group("D4")


class Net(nn.Module):
    """`layer`: every pose of two filters under D4, one channel each, exactly equivariant; then a random read-out that
    tells poses apart. `broken`: of the first shape all channels but the upright one are filters of their own."""

    def __init__(self, broken: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        filters = torch.randn(SHAPES, 1, 5, 5, generator=generator)
        kernels = torch.cat([D4.orbit(one, antialias=False) for one in filters])
        if broken:
            kernels[1:8] = torch.randn(7, 1, 5, 5, generator=generator)
        self.layer = nn.Sequential(nn.Conv2d(1, 8 * SHAPES, 5, bias=False), nn.ReLU())
        self.layer[0].weight.data = kernels
        self.mix = nn.Conv2d(8 * SHAPES, 12, 3, bias=False)
        self.mix.weight.data = torch.randn(self.mix.weight.shape, generator=generator)
        self.head = nn.Linear(12, 5, bias=False)
        self.head.weight.data = torch.randn(5, 12, generator=generator)

    def tail(self, maps: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.mix(maps) - 2).mean((2, 3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tail(self.layer(x))


def untied() -> groupcc.GroupCrosscoder:
    """The channels themselves: latent u is in pose u upright, and T_g takes it to channel gu."""
    config = groupcc.CrosscoderConfig(group="D4", d_in=16, n_latents=16, k=16, encoder="identity")
    made = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        made.W_dec.zero_()
        for shape in range(SHAPES):
            for u in range(8):
                for g in range(8):
                    made.W_dec[8 * shape + u, g, 8 * shape + D4.cayley[g, u]] = 1.0
        made.W_enc.copy_(torch.eye(16)[:, None])
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made.eval()


def tied(encoder: str) -> groupcc.GroupCrosscoder:
    config = groupcc.CrosscoderConfig(
        group="D4", d_in=16, n_latents=SHAPES, k=16, encoder=encoder, tied=True, pose="nms", pose_distance=0.0
    )
    made = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        made.W_dec.copy_(torch.eye(16).view(SHAPES, 8, 16))
        made.W_enc.copy_(made.W_dec / (8 if encoder == "orbit" else 1))
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made.eval()


def pictures(count: int = 4, side: int = 33) -> torch.Tensor:
    """Smooth random images, so that sampling between pixels loses little."""
    noise = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(5))
    return nn.functional.avg_pool2d(noise, 3, 1, 1) * 3
