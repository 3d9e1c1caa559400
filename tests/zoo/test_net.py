from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn

from groupcc.errors import ArgumentError, DataError
from groupcc.files import sha256_file
from groupcc.zoo import Photograph, load_net, photographs
from groupcc.zoo.net import WEIGHTS, SmallInception, fold_batch_norm
from groupcc.zoo.photographs import TRAIN
from groupcc.zoo.train_net import BLUR_RADIUS, CROP, CropSource, NetTrainConfig, augment, main, train_net


def _mid_layer(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = net.get_submodule("mixed3b").register_forward_hook(lambda module, inputs, output: seen.append(output))
    net(x)
    handle.remove()
    return seen[0]


def test_bundled_weights_are_small_half_precision_and_recorded() -> None:
    record = json.loads(WEIGHTS.with_suffix(".json").read_text())
    assert WEIGHTS.stat().st_size <= 2_000_000
    assert record["sha256"] == sha256_file(WEIGHTS)
    assert record["classes"] == [p.name for p in photographs("train")]
    assert record["config"] == vars(NetTrainConfig())


def test_the_net_is_frozen_float32_and_in_eval_mode() -> None:
    net = load_net()
    assert not net.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in net.parameters())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())


@pytest.mark.parametrize("size", [(65, 65), (65, 90), (128, 101)])
def test_logits_and_the_mid_layer_for_any_size_from_65(size: tuple[int, int]) -> None:
    net = load_net()
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert net(x).shape == (2, len(TRAIN))
    assert _mid_layer(net, x).shape == (2, 80, (size[0] - 1) // 4 + 1, (size[1] - 1) // 4 + 1)


def test_mid_layer_index_u_is_centred_on_input_pixel_4u() -> None:
    # With positive weights every path is open, and noise lets each pooling window pick any of its pixels.
    net = SmallInception(2)
    with torch.no_grad():
        for p in net.parameters():
            p.fill_(0.01)
    x = torch.rand(8, 3, 161, 161, generator=torch.Generator().manual_seed(0)) + 0.5
    x.requires_grad_()
    _mid_layer(net, x)[:, :, 20, 20].sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum(dim=(0, 1)) > 0
    for axis in (0, 1):
        field = touched.any(dim=axis).nonzero()[:, 0]
        assert (int(field[0]), int(field[-1])) == (80 - 25, 80 + 25)


def test_the_net_has_learned_the_photographs_and_not_their_rotations() -> None:
    net = load_net()
    crops, labels = CropSource(photographs("train"), held_out=True, seed=3).draw(200)
    crops = crops[:, :, BLUR_RADIUS:-BLUR_RADIUS, BLUR_RADIUS:-BLUR_RADIUS]
    assert (net(crops).argmax(dim=1) == labels).float().mean() > 0.75
    upright = _mid_layer(net, crops)
    turned_back = torch.rot90(_mid_layer(net, torch.rot90(crops, 1, dims=(2, 3))), -1, dims=(2, 3))
    relative = (upright - turned_back).square().mean() / upright.square().mean()
    assert relative > 0.05


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(1, 3, 64, 80), "at least 65"),
        (torch.zeros(3, 80, 80), r"\[B, 3, H, W\]"),
        (torch.zeros(1, 1, 80, 80), r"\[B, 3, H, W\]"),
        (torch.zeros(1, 3, 80, 80, dtype=torch.uint8), "float RGB"),
    ],
)
def test_wrong_inputs_are_named(x: torch.Tensor, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load_net()(x)


def test_damaged_or_foreign_weights_are_refused(tmp_path) -> None:
    path = tmp_path / "net.safetensors"
    with pytest.raises(DataError, match="can't be read"):
        load_net(path)
    shutil.copy(WEIGHTS, path)
    with pytest.raises(DataError, match="record beside it"):
        load_net(path)
    shutil.copy(WEIGHTS.with_suffix(".json"), path.with_suffix(".json"))
    load_net(path)
    damaged = bytearray(path.read_bytes())
    damaged[-100] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match="damaged"):
        load_net(path)
    path.write_bytes(b"{}")
    path.with_suffix(".json").write_text(json.dumps({"sha256": sha256_file(path)}))
    with pytest.raises(DataError, match="does not hold the weights"):
        load_net(path)


def test_folding_batch_norms_changes_nothing() -> None:
    torch.manual_seed(0)
    net = SmallInception(5, batch_norm=True)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for p in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(p, 0.5, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    x = torch.rand(2, 3, 65, 65)
    torch.testing.assert_close(fold_batch_norm(net)(x), net.eval()(x), rtol=1e-4, atol=1e-4)


def test_crops_are_upright_and_unmirrored() -> None:
    # Red grows to the right and green downwards in every crop, whatever its place, scale and blur.
    y, x = np.mgrid[0:300, 0:400]
    pixels = np.stack([255 * x / 399, 255 * y / 299, np.zeros_like(x)], axis=-1).astype(np.uint8)
    for held_out in (False, True):
        crops, labels = CropSource([Photograph("ramp", pixels)], held_out=held_out, seed=0).draw(64)
        assert crops.shape == (64, 3, CROP, CROP)
        assert (labels == 0).all()
        _assert_ramps(crops, places=(3, 2))


def test_augmentation_keeps_orientation_and_handedness() -> None:
    # No channel is alike and no direction is alike, so that any turn, mirror or transposition shows.
    ramp = torch.linspace(0.3, 0.7, CROP)
    crops = torch.zeros(128, 3, CROP, CROP)
    crops[:, 0] = ramp[None, None, :]
    crops[:, 1] = 2 * ramp[None, :, None] - 0.5
    out = augment(crops, torch.Generator().manual_seed(0))
    assert out.shape == (128, 3, CROP - 2 * BLUR_RADIUS, CROP - 2 * BLUR_RADIUS)
    assert out.min() >= 0
    assert out.max() <= 1
    total = out.sum(dim=1)
    right = (total[:, :, 50:] - total[:, :, :15].mean(dim=2, keepdim=True)).mean(dim=(1, 2))
    down = (total[:, 50:, :] - total[:, :15, :].mean(dim=1, keepdim=True)).mean(dim=(1, 2))
    assert (right > 0.02).all()
    assert (down > 1.3 * right).all()


def _assert_ramps(crops: torch.Tensor, *, places: tuple[int, int]) -> None:
    for channel, axis in zip((0, 1), places, strict=True):
        profile = crops[:, channel].mean(dim=2 if axis == 2 else 1)
        assert (profile[:, -1] - profile[:, 0] > 0.05).all()
        across = crops[:, channel].mean(dim=1 if axis == 2 else 2)
        assert (across[:, -1] - across[:, 0]).abs().max() < 0.02


def test_held_out_regions_and_trained_regions_do_not_overlap() -> None:
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[:, 300:] = 255
    trained, _ = CropSource([Photograph("halves", pixels)], held_out=False, seed=0).draw(200)
    held_out, _ = CropSource([Photograph("halves", pixels)], held_out=True, seed=0).draw(200)
    assert trained.max() < 0.1
    assert held_out.mean() > 0.7


def test_training_repeats_to_the_byte(tmp_path) -> None:
    config = NetTrainConfig(steps=3, batch_size=8, threads=1)
    threads = torch.get_num_threads()
    first = train_net(tmp_path / "a.safetensors", config, progress=False, eval_crops=20)
    torch.rand(7)  # the state of the global generator must not matter
    train_net(tmp_path / "b.safetensors", config, progress=False, eval_crops=20)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert torch.get_num_threads() == threads
    assert set(first["accuracy"]) == {"train", "held_out_regions"}
    load_net(tmp_path / "a.safetensors")
    with pytest.raises(ArgumentError, match=r"\.safetensors"):
        train_net(tmp_path / "a.bin", config)


def test_the_command_line_lists_its_options(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--steps" in capsys.readouterr().out
