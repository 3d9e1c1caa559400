"""The same network with random weights: a null for what is found in the trained one."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import groupcc
from groupcc import random_view, random_weights
from groupcc.errors import ArgumentError, DataError
from groupcc.views import LayerView


class Scaled(nn.Module):
    """Parameters of its own and no way to initialise them."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(2 + torch.linspace(-1, 1, 8).view(1, 8, 1, 1))

    def forward(self, x):
        return x * self.scale


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.scaled = Scaled()
        self.again = self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.head(self.again(self.drop(self.scaled(x))))


@pytest.fixture
def net():
    torch.manual_seed(0)
    made = Net().eval()
    with torch.no_grad():
        made.norm.running_mean += 5
    return made


def images(n=40):
    return torch.rand(n, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_every_layer_is_new_and_the_given_network_stays(net):
    before = copy.deepcopy(net.state_dict())
    state = torch.random.get_rng_state()
    made = random_weights(net, images(), seed=5)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    for name in ("first.weight", "first.bias", "head.weight", "scaled.scale"):
        assert not torch.equal(made.state_dict()[name], before[name]), name
    assert not any(module.training for module in made.modules())
    assert made.norm.momentum == net.norm.momentum
    assert made.again is made.drop
    scale = made.scaled.scale
    assert 1 < float(scale.mean()) < 3
    assert 0.2 < float(scale.std()) < 1.5


def test_batch_norms_are_those_of_the_images(net):
    made = random_weights(net, images(32))
    with torch.no_grad():
        seen = made.first(images(32))
    torch.testing.assert_close(made.norm.running_mean, seen.mean((0, 2, 3)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.norm.running_var, seen.var((0, 2, 3)), atol=1e-2, rtol=5e-2)


def test_the_seed_decides(net):
    one, same, other = (random_weights(net, images(), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    assert not torch.equal(one.first.weight, other.first.weight)


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        (3, images(), "model: expected"),
        (nn.Identity(), 3, "inputs: expected"),
        (nn.Identity(), images()[0], "inputs: "),
    ],
)
def test_wrong_arguments(model, inputs, said):
    with pytest.raises(ArgumentError, match=said):
        random_weights(model, inputs)


def test_a_view_of_random_weights_has_the_same_geometry():
    view = LayerView.open("bundled", "mixed3a", "D4", input_size=97)
    shown = [np.random.default_rng(i).integers(0, 255, (120, 120, 3), dtype=np.uint8) for i in range(3)]
    null = random_view(view, shown)
    assert null.geometry == view.geometry
    assert (null.layer, null.d_in) == (view.layer, view.d_in)
    assert null.fingerprint != view.fingerprint
    assert null.model_name == "bundled with random weights (seed 0)"
    orbits, own = (groupcc.harvest(of, images=shown, progress=False) for of in (null, view))
    assert len(orbits) == len(own)
    assert not torch.equal(orbits.take(torch.arange(4)), own.take(torch.arange(4)))


def test_a_view_without_an_image_that_can_be_read(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    view = LayerView.open("bundled", "mixed3a", "D4", input_size=97)
    with pytest.raises(DataError, match="none of the first 64 images can be read"):
        random_view(view, tmp_path)
