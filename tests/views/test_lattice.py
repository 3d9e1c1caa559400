"""Stride, offset and receptive field are measured, and what has none is said."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from groupcc.errors import ArgumentError
from groupcc.views import Lattice, measure_lattice
from helpers.nets import TinyNet


class Branches(nn.Module):
    """A 1x1 and a 5x5 branch side by side after a strided stem, as in an Inception block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 7, stride=2, padding=3), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.one, self.five = nn.Conv2d(4, 2, 1), nn.Conv2d(4, 2, 5, padding=2)
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))
        return self.out(torch.cat([self.one(x), self.five(x)], 1))


class Gated(nn.Module):
    """Squeeze and excitation: every output pixel sees the whole image."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.out(x * x.mean((2, 3), keepdim=True).sigmoid())


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (nn.Conv2d(3, 2, 3, padding=1), (1, 0, 3)),
        (nn.AvgPool2d(2), (2, 0.5, 2)),
        (nn.MaxPool2d(2), (2, 0.5, 2)),
        (nn.Conv2d(3, 2, 5, stride=3, padding=1), (3, 1, 5)),
        (nn.Conv2d(3, 2, 3, padding=0), (1, 1, 3)),
        (nn.Conv2d(3, 2, 3, padding=2, dilation=2), (1, 0, 5)),
        (nn.Conv2d(3, 2, (3, 3), stride=4, padding=0), (4, 1, 3)),
    ],
)
def test_known_layers(net: nn.Module, expected: tuple[float, float, int]) -> None:
    lattice = measure_lattice(nn.Sequential(net), "0", (40, 46))
    assert (lattice.stride, lattice.offset, lattice.receptive_field) == expected
    with torch.no_grad():
        assert lattice.map_size == tuple(net(torch.zeros(1, 3, 40, 46)).shape[2:])


def test_branches_and_pools_add_up() -> None:
    # Stem: 2u; pool of windows 2k to 2k+2: 2(2u + 1); 7 + 2·2 + 4·4 = 27 pixels.
    assert measure_lattice(Branches(), "out", (96, 96)) == Lattice(4, 2, 27, (24, 24))


def test_torchvisions_googlenet_is_at_8u_plus_6() -> None:
    models = pytest.importorskip("torchvision").models
    net = models.googlenet(weights=None, init_weights=False)
    assert measure_lattice(net, "inception3b", (224, 224)) == Lattice(8, 6, 59, (28, 28))


def test_zero_weights_do_not_hide_an_input() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 5, padding=2), nn.ReLU())
    nn.init.zeros_(net[0].weight)
    nn.init.constant_(net[0].bias, -1.0)
    assert measure_lattice(net, "1", (32, 32)).receptive_field == 5


def test_a_probe_smaller_than_the_receptive_field_is_enlarged() -> None:
    net = nn.Sequential(*[nn.Conv2d(3, 3, 9, padding=4) for _ in range(5)])
    assert measure_lattice(net, "4", (33, 33)) == Lattice(1, 0, 41, (33, 33))


def test_the_model_is_left_as_it_was() -> None:
    net = Branches().train()
    net.stem.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    measure_lattice(net, "out", (64, 64))
    assert net.training
    assert not net.stem.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.out._forward_hooks


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        (Gated(), "out"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(4)), "1"),
        (nn.Sequential(nn.Conv2d(3, 2, 3), nn.GroupNorm(1, 2)), "1"),
        (nn.Sequential(nn.Conv2d(3, 2, 3, stride=2), nn.Upsample(scale_factor=1.5, mode="bilinear")), "1"),
        (nn.Sequential(nn.Conv2d(3, 2, (3, 5), padding=(1, 2))), "0"),
    ],
    ids=["squeeze-excitation", "adaptive-pool", "group-norm", "upsampled", "oblong"],
)
def test_a_layer_without_a_lattice_says_how_to_give_one(net: nn.Module, layer: str) -> None:
    with pytest.raises(ArgumentError, match=r"lattice=Lattice\(stride=\.\.\., offset=\.\.\., receptive_field"):
        measure_lattice(net, layer, (48, 48))


def test_an_unknown_layer_lists_the_nearest() -> None:
    with pytest.raises(ArgumentError, match="Nearest: second"):
        measure_lattice(TinyNet(), "secnd", (48, 48))


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"offset": float("nan")}, {"receptive_field": 0}])
def test_a_lattice_by_hand_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ArgumentError, match="lattice"):
        Lattice(**({"stride": 4.0, "offset": 0.0, "receptive_field": 9} | wrong))


def test_a_forward_that_does_not_follow_the_copy_says_so() -> None:
    net = TinyNet()
    original = net.forward
    net.forward = lambda x: original(x)  # type: ignore[method-assign]
    with pytest.raises(ArgumentError, match=r"forward replaced on the model.*lattice=Lattice"):
        measure_lattice(net, "body", (48, 48))
