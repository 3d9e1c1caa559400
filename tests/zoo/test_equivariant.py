"""The equivariant net: equivariant to rounding whatever its weights are, with the symmetries that it names."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from groupcc import harvest
from groupcc.analysis import autocorrelation
from groupcc.errors import ArgumentError, DataError
from groupcc.files import sha256_file
from groupcc.groups import as_action
from groupcc.zoo import equivariant_net, photographs
from groupcc.zoo.equivariant import GROUP, LIFTED, SECOND, TOP, WEIGHTS, EquivariantNet
from groupcc.zoo.train_equivariant import EquivariantTrainConfig, main, train_equivariant
from groupcc.zoo.train_net import BLUR_RADIUS, CropSource

LAYERS = {"lift": LIFTED, "second": SECOND, "top": TOP}


@pytest.fixture(scope="module")
def net() -> EquivariantNet:
    return equivariant_net()


def scrambled() -> EquivariantNet:
    """Returns a net with random parameters and statistics, in float64."""
    generator = torch.Generator().manual_seed(4)
    net = EquivariantNet(5).double().eval()
    for name, values in net.state_dict().items():
        if values.is_floating_point():
            drawn = torch.randn(values.shape, generator=generator, dtype=values.dtype)
            values.copy_(drawn.abs() + 0.5 if name.endswith(("norm.weight", "running_var")) else 0.3 * drawn)
    return net


def layers(net: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Returns the output of each layer, and the logits."""
    seen: dict[str, torch.Tensor] = {}
    handles = [
        net.get_submodule(name).register_forward_hook(lambda _, args, out, name=name: seen.__setitem__(name, out))
        for name in LAYERS
    ]
    with torch.no_grad():
        seen["logits"] = net(x)
    for handle in handles:
        handle.remove()
    return seen


def turned(maps: torch.Tensor, g: int) -> torch.Tensor:
    """Returns T_g of maps [B, C, H, W] by PyTorch's own flips and turns."""
    r, s = g % 4, g // 4
    return torch.rot90(maps.flip(-1) if s else maps, r, (-2, -1))


@pytest.mark.parametrize("which", ["random", "trained"])
def test_a_layer_of_the_turned_image_is_the_turned_layer_with_poses_moved(which: str, net: EquivariantNet) -> None:
    """y_(c,h)(T_g x) = T_g y_(c,g⁻¹h)(x), in every layer, for every g; logits are invariant."""
    net = scrambled() if which == "random" else equivariant_net().double()
    x = torch.rand(2, 3, 65, 81, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    upright = layers(net, x)
    for g in range(GROUP.order):
        moved = layers(net, turned(x, g))
        torch.testing.assert_close(moved["logits"], upright["logits"], rtol=0, atol=1e-10)
        pose = torch.from_numpy(GROUP.cayley[GROUP.inverse[g]].copy())
        for name in LAYERS:
            maps = upright[name].unflatten(1, (-1, GROUP.order))[:, :, pose].flatten(1, 2)
            torch.testing.assert_close(moved[name], turned(maps, g), rtol=0, atol=1e-10)
            if g and which == "random":
                assert not torch.allclose(moved[name], turned(upright[name], g), atol=0.01)


def test_the_turn_of_the_test_is_that_of_the_action() -> None:
    x = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    action = as_action("D4").transform(x, antialias=False)[0]
    assert torch.equal(action, torch.cat([turned(x, g) for g in range(8)]))


@pytest.mark.parametrize("name", LAYERS)
def test_channels_of_a_coset_are_equal_and_others_are_not(name: str) -> None:
    kernels = scrambled().get_submodule(name).kernels().flatten(1).unflatten(0, (-1, GROUP.order))
    for filter_, label in zip(kernels, LAYERS[name], strict=True):
        elements = GROUP.subgroup_named(label).elements
        for h in range(GROUP.order):
            same = np.isin(np.arange(GROUP.order), GROUP.cayley[h, elements])
            distance = (filter_ - filter_[h]).norm(dim=1) / filter_[h].norm()
            assert distance[torch.from_numpy(same)].max() < 1e-12
            assert (distance[torch.from_numpy(~same)] > 0.1).all()


@pytest.mark.parametrize("layer", LAYERS)
def test_orbits_are_the_atoms_times_the_filters_answers(layer: str, net: EquivariantNet) -> None:
    truth = net.truth(layer)
    assert [s.label for s in truth.stabilizers] == [GROUP.subgroup_named(name).label for name in LAYERS[layer]]
    C = autocorrelation(truth.atoms, GROUP).numpy()
    assert C[truth.atom_stabilizers].min() > 1 - 1e-6
    assert C[~truth.atom_stabilizers].max() < 1e-6
    pixels = dict(photographs("held_out"))["coffee"]
    orbits = harvest(net, layer, [pixels], "D4", input_size=97, dtype="float32", progress=False)
    acts = orbits.take(torch.arange(len(orbits))).float()
    channels = 8 * truth.atom_base + truth.atom_pose  # one of each coset
    codes = acts[:, 0, channels]
    multiples = torch.tensor([len(truth.stabilizers[f].elements) for f in truth.atom_base.tolist()])
    scale = (GROUP.order * multiples).sqrt()
    expected = torch.einsum("na,agd->ngd", codes * scale, truth.atoms)
    torch.testing.assert_close(acts, expected, rtol=1e-3, atol=1e-3)
    assert acts.std() > 0.01


def test_it_has_learned_the_photographs(net: EquivariantNet) -> None:
    crops, labels = CropSource(photographs("train"), held_out=True, seed=3).draw(200)
    crops = crops[:, :, BLUR_RADIUS:-BLUR_RADIUS, BLUR_RADIUS:-BLUR_RADIUS]
    assert (net(crops).argmax(1) == labels).float().mean() > 0.4


def test_bundled_weights_are_small_frozen_and_recorded(net: EquivariantNet) -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert WEIGHTS.stat().st_size <= 200_000
    assert record["sha256"] == sha256_file(WEIGHTS)
    assert record["classes"] == [p.name for p in photographs("train")]
    assert record["config"] == vars(EquivariantTrainConfig())
    assert not net.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in net.parameters())
    state = torch.get_rng_state()
    equivariant_net()
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_inputs_and_layers_are_named(net: EquivariantNet) -> None:
    for x in (
        torch.zeros(1, 3, 64, 65),
        torch.zeros(1, 3, 57, 57),
        torch.zeros(3, 65, 65),
        torch.zeros(1, 3, 65, 65, dtype=torch.uint8),
        None,
    ):
        with pytest.raises(ArgumentError, match="x: expected float RGB"):
            net(x)
    with pytest.raises(ArgumentError, match="layer"):
        net.truth("classifier")


def test_foreign_weights_are_refused(tmp_path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(DataError, match=r"can't be read.*train_equivariant"):
        equivariant_net(path)
    bundled = WEIGHTS.with_name("small_inception.safetensors")
    for suffix in (".safetensors", ".json"):
        shutil.copy(bundled.with_suffix(suffix), path.with_suffix(suffix))
    with pytest.raises(DataError, match="does not hold the weights of EquivariantNet"):
        equivariant_net(path)


def test_training_is_deterministic_and_writes_what_loads(tmp_path, capsys) -> None:
    config = EquivariantTrainConfig(steps=2, batch_size=4)
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    state = torch.get_rng_state()
    records = [train_equivariant(file, config, progress=False, eval_crops=20) for file in files]
    assert torch.equal(torch.get_rng_state(), state)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert records[0]["sha256"] == sha256_file(files[0])
    assert 0 < records[0]["active"] < 1
    assert equivariant_net(files[0]).classifier.out_features == 13
    with pytest.raises(ArgumentError, match="out"):
        train_equivariant(tmp_path / "a.bin")
    main(["--out", str(files[1]), "--steps", "1", "--seed", "5"])
    assert "of the channels of second are active" in capsys.readouterr().out
    assert json.loads(files[1].with_suffix(".json").read_text())["config"]["seed"] == 5
