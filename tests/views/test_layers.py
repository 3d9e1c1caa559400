"""Layers by name, captured by a hook that leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from groupcc.errors import ArgumentError
from groupcc.views.layers import LayerReader, evaluation_mode, find_layer, probe_layer
from helpers.nets import TinyNet, noise


def test_the_reader_stops_at_the_layer() -> None:
    net = TinyNet().eval()
    images = noise(2, 48)
    with torch.no_grad():
        expected = torch.relu(net.second(torch.relu(net.first(images))))
    net.head.forward = lambda x: pytest.fail("ran past the layer")  # type: ignore[method-assign]
    maps = LayerReader(net, "body")(images)
    assert torch.equal(maps, expected)
    assert not maps.requires_grad
    assert not net.body._forward_hooks


def test_the_hook_goes_when_the_model_fails() -> None:
    net = TinyNet().eval()
    with pytest.raises(RuntimeError, match="channels"):
        LayerReader(net, "body")(torch.zeros(1, 4, 48, 48))
    assert not net.body._forward_hooks


def test_unknown_layer_lists_valid_and_nearest_names() -> None:
    with pytest.raises(ArgumentError, match=r"got 'bodi'.*Nearest: body.*Valid names: first, second, body, unused"):
        find_layer(TinyNet(), "bodi")


def test_a_long_list_of_names_is_cut_with_blocks_first() -> None:
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(30)])
    with pytest.raises(ArgumentError, match=r"and 50 more") as caught:
        find_layer(net, "nothing like it")
    assert all(f" {block}" in str(caught.value) for block in (0, 15, 29))


class Odd(nn.Module):
    def __init__(self, output: object) -> None:
        super().__init__()
        self.inner = nn.Identity()
        self.inner.forward = lambda x: output  # type: ignore[method-assign,assignment]

    def forward(self, x: Tensor) -> Tensor:
        self.inner(x)
        return x


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ((torch.zeros(1, 2, 3, 3),), "a tuple"),
        (torch.zeros(1, 50, 64), "tokens"),
        (torch.zeros(1, 4), r"\(1, 4\)"),
        (torch.zeros(1, 2, 3, 3, dtype=torch.int64), "int64"),
        (torch.zeros(7, 2, 3, 3), r"\(7, 2, 3, 3\)"),
    ],
)
def test_what_is_no_feature_map_is_named(output: object, said: str) -> None:
    with pytest.raises(ArgumentError, match=said):
        probe_layer(Odd(output), "inner", torch.zeros(1, 3, 8, 8))


def test_a_layer_called_twice_or_never_is_an_error() -> None:
    net = TinyNet().eval()
    with pytest.raises(ArgumentError, match="called 2 times"):
        probe_layer(net, "shared", noise(1, 48))
    for use in (probe_layer, lambda net, layer, images: LayerReader(net, layer)(images)):
        with pytest.raises(ArgumentError, match="never called"):
            use(net, "unused", noise(1, 48))


def test_a_classifier_that_fails_after_the_layer_is_no_obstacle() -> None:
    net = TinyNet().eval()
    net.head = nn.Linear(99, 3)
    layout, shape = probe_layer(net, "body", noise(1, 48))
    assert (layout.name, shape) == ("BCHW", (5, 12, 12))
    with pytest.raises(ArgumentError, match="input_size"):
        probe_layer(net, "body", torch.zeros(1, 4, 48, 48))


def test_training_flags_come_back_even_after_an_error() -> None:
    net = TinyNet().train()
    net.first.eval()

    def fail() -> None:
        with evaluation_mode(net):
            assert not any(module.training for module in net.modules())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert net.training
    assert net.second.training
    assert not net.first.training
