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
from groupcc.zoo import efficientnet_lite0, load_net

torchvision = pytest.importorskip("torchvision")


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
    assert 1 < scale.mean().item() < 3
    assert 0.2 < scale.std().item() < 1.5


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
        (nn.Sequential(torchvision.ops.FrozenBatchNorm2d(3)), images(), "'0', a FrozenBatchNorm2d"),
        (nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True)), images(), "'0', a InstanceNorm2d"),
    ],
)
def test_wrong_arguments(model, inputs, said):
    with pytest.raises(ArgumentError, match=said):
        random_weights(model, inputs)


def test_a_seed_is_a_whole_number(net):
    for seed in (-1, 0.5, None):
        with pytest.raises(ArgumentError, match="seed"):
            random_weights(net, images(), seed=seed)


def resnet18():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        return torchvision.models.resnet18().eval()


def assert_norms_fit(net, x):
    """What each batch norm is given has just its running mean and variance, if those before it read the batch too.

    In eval mode, where none does, the two differ by N − 1 in place of N in the variance, norm after norm.
    """
    norms = {name: m for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)}
    kept = {name: (norm.running_mean.clone(), norm.running_var.clone()) for name, norm in norms.items()}
    for mode, tolerance in (("batch", 0.01), ("eval", 0.1)):
        copied = copy.deepcopy(net)
        seen = {}
        for name, m in copied.named_modules():
            m.training = mode == "batch" and name in norms
            if name in norms:
                m.register_forward_pre_hook(
                    lambda _, args, name=name, seen=seen: seen.__setitem__(name, args[0].clone())
                )
        with torch.no_grad():
            copied(x)
        assert seen.keys() == norms.keys()
        for name, (mean, variance) in kept.items():
            maps = seen[name].transpose(0, 1).flatten(1)
            spread = maps.std(1)
            for error in (maps.mean(1) - mean, variance.sqrt() - spread):
                share = (error / spread).abs()
                assert (share.max() if mode == "batch" else share.mean()) <= tolerance, (mode, name)


@pytest.mark.parametrize("make", [resnet18, efficientnet_lite0, load_net], ids=lambda make: make.__name__)
def test_networks_of_every_day(make):
    net = make()
    x = torch.rand(8, 3, 96, 96, generator=torch.Generator().manual_seed(5)) - 0.3
    state = torch.get_rng_state()
    made = random_weights(net, x, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, ours), theirs in zip(made.named_parameters(), net.parameters(), strict=True):
        if ours.ndim > 1:
            correlation = torch.corrcoef(torch.stack([ours.detach().flatten(), theirs.detach().flatten()]))[0, 1]
            assert abs(correlation) < 5 / ours.numel() ** 0.5, name
    assert_norms_fit(made, x)
    with torch.no_grad():
        assert made(x).std(0).mean() > 1e-4


def test_batches_are_of_equal_size_and_averaged(monkeypatch):
    x = images(10) * torch.linspace(1, 4, 10)[:, None, None, None]
    monkeypatch.setattr("groupcc.views.random_weights.AT_ONCE", 9)
    made = random_weights(nn.Sequential(nn.BatchNorm2d(3, momentum=0.3)), x)
    halves = torch.stack([half.transpose(0, 1).flatten(1).var(1) for half in x.split(5)])
    torch.testing.assert_close(made[0].running_var, halves.mean(0))
    torch.testing.assert_close(made[0].running_mean, x.mean((0, 2, 3)))
    # A norm of single numbers fails on a single image: none is left over.
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    assert random_weights(flat, x)[1].num_batches_tracked == 2


class Odd(nn.Module):
    """What other modules have: a weight used twice, dropout inside a norm, attention, a norm without parameters."""

    def __init__(self):
        super().__init__()
        self.bare = nn.BatchNorm2d(3, affine=False)
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.third = nn.Conv2d(3, 3, 3, padding=1)
        self.third.weight = self.first.weight
        self.weights = nn.ParameterList([self.first.weight])
        self.norm = nn.BatchNorm2d(3)
        self.norm.drop = nn.Dropout(0.9)
        self.attention = nn.MultiheadAttention(6, 2)

    def forward(self, x):
        assert not self.norm.drop.training
        return self.norm.drop(self.norm(self.third(self.first(self.bare(x)))))


def test_what_is_shared_stays_shared_and_dropout_is_off():
    net = Odd()
    made = random_weights(net, images())
    assert made.third.weight is made.first.weight
    assert made.weights[0] is made.first.weight
    bound = 27**-0.5
    assert bound / 2 < made.first.weight.abs().max() <= bound  # as a convolution is initialised
    bound = (6 / 24) ** 0.5
    assert bound / 2 < made.attention.in_proj_weight.abs().max() <= bound
    assert not torch.equal(made.attention.in_proj_weight, net.attention.in_proj_weight)
    assert_norms_fit(made, images())
    assert random_weights(nn.Sequential(nn.BatchNorm2d(3, affine=False)), images())[0].running_mean.abs().min() > 0.1


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
