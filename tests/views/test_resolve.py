"""Models by name, and weights from files, without running anything that is in them."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from groupcc.errors import ArgumentError, DataError, GroupccWarning
from groupcc.views import resolve_model
from groupcc.views.layers import find_layer
from groupcc.views.resolve import layer_alias, resolve

torchvision = pytest.importorskip("torchvision")
models = torchvision.models


@pytest.fixture(scope="module")
def squeezenet() -> nn.Module:
    return models.squeezenet1_1(weights=None).eval()


def test_torchvision_by_name_with_its_own_preprocessing() -> None:
    with pytest.warns(GroupccWarning, match="random weights"):
        resolved = resolve_model("squeezenet1_1", "random")
    assert resolved.name == "squeezenet1_1"
    assert resolved.input_size == (224, 224)
    assert resolved.mean == (0.485, 0.456, 0.406)
    assert resolved.std == (0.229, 0.224, 0.225)
    assert not resolved.model.training


def test_weights_must_be_chosen() -> None:
    with pytest.raises(ArgumentError, match=r'weights.*"DEFAULT".*"random"'):
        resolve_model("googlenet")


@pytest.mark.parametrize("wrapped", [None, "state_dict", "module"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights_from_a_file(tmp_path: Path, squeezenet: nn.Module, suffix: str, wrapped: str | None) -> None:
    state = {key: value + 1 for key, value in squeezenet.state_dict().items()}
    saved: dict = {f"module.{key}": value for key, value in state.items()} if wrapped == "module" else state
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(saved, path)
    else:
        torch.save({"state_dict": saved, "epoch": 3} if wrapped == "state_dict" else saved, path)
    loaded = resolve_model("squeezenet1_1", path).model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_googlenet_file_with_and_without_auxiliary_heads(tmp_path: Path) -> None:
    net = models.googlenet(weights=None, init_weights=False, aux_logits=True)
    state = net.state_dict()
    torch.save(state, tmp_path / "with.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("aux")}, tmp_path / "without.pth")
    images = torch.rand(1, 3, 64, 64)
    outputs = []
    for name in ("with.pth", "without.pth"):
        model = resolve_model("googlenet", tmp_path / name).model
        assert model.transform_input
        assert model.aux1 is None
        with torch.no_grad():
            outputs.append(model(images))
    assert torch.equal(*outputs)


def test_a_file_that_does_not_fit_names_the_keys(tmp_path: Path, squeezenet: nn.Module) -> None:
    state = dict(squeezenet.state_dict())
    first, second = list(state)[:2]
    state["stranger"] = state.pop(first)
    state[second] = torch.zeros(7)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=rf"1 missing \({first}\); 1 unexpected \(stranger\); 1 of another shape"):
        resolve_model("squeezenet1_1", tmp_path / "w.safetensors")


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran"),))


def test_no_code_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Malicious()))
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    (tmp_path / "noise.safetensors").write_bytes(b"\x00" * 100)
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    for name in ("evil.pth", "whole.pth", "noise.safetensors", "list.pth", "missing.pth"):
        with pytest.raises(DataError, match=name):
            resolve_model("squeezenet1_1", tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_failed_download_says_how_to_give_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent")
    monkeypatch.setattr("os.makedirs", lambda *args, **options: None)
    with pytest.raises(DataError, match=r"no route to host.*fetch https?://\S+\.pth.*weights=FILE"):
        resolve_model("squeezenet1_1", "DEFAULT")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(ArgumentError, match="Nearest: googlenet"):
        resolve_model("gogglenet", "DEFAULT")
    with pytest.raises(ArgumentError, match="model"):
        resolve_model("")


def test_any_callable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "from torch import nn\n"
        "def small():\n    return nn.Sequential(nn.Conv2d(3, 2, 3))\n"
        "def wrong():\n    return 5\n"
        "def broken():\n    raise ValueError('no weights')\n"
    )
    monkeypatch.chdir(tmp_path)
    resolved = resolve_model("my_models:small")
    assert resolved.name == "my_models:small"
    assert resolved.input_size == (224, 224)
    assert isinstance(resolved.model[0], nn.Conv2d)
    save_file({key: value * 0 for key, value in resolved.model.state_dict().items()}, tmp_path / "w.safetensors")
    assert resolve_model("my_models:small", tmp_path / "w.safetensors").model[0].weight.abs().max() == 0
    for spec, said in (
        ("my_models:wrong", "a int"),
        ("my_models:broken", "no weights"),
        ("my_models:absent", "absent"),
        ("no_such_package:f", "no_such_package"),
    ):
        with pytest.raises(ArgumentError, match=said):
            resolve_model(spec)
    with pytest.raises(ArgumentError, match="weights"):
        resolve_model("my_models:small", "DEFAULT")


def test_the_bundled_net() -> None:
    resolved = resolve_model("bundled")
    assert resolved.name == "bundled"
    find_layer(resolved.model, "mixed3b")
    assert not resolved.model.training
    with pytest.raises(ArgumentError, match="weights"):
        resolve_model("bundled", "random")


def test_the_papers_layer_names() -> None:
    net = models.googlenet(weights=None, init_weights=False)
    with pytest.warns(GroupccWarning, match="not the network of the paper"):
        assert layer_alias(net, "mixed3b") == "inception3b"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer_alias(net, "inception3b") == "inception3b"
        assert layer_alias(nn.Sequential(), "mixed3b") == "mixed3b"
        assert layer_alias(net, "mixed9z") == "mixed9z"


def test_a_model_says_how_it_is_to_be_used() -> None:
    net = nn.Sequential(nn.Conv2d(3, 2, 3))
    assert resolve(net, None).mean == (0.0, 0.0, 0.0)
    net.pretrained_cfg = {"input_size": (3, 160, 192), "mean": (0.5, 0.4, 0.3), "std": [0.2, 0.2, 0.2]}
    resolved = resolve(net, None)
    assert (resolved.name, resolved.input_size) == ("Sequential", (160, 192))
    assert (resolved.mean, resolved.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    for wrong in ({}, {"input_size": 224, "mean": (0,), "std": (1,)}, {"input_size": (3, 9, 9), "mean": "x", "std": 1}):
        net.pretrained_cfg = wrong
        with pytest.raises(ArgumentError, match="pretrained_cfg"):
            resolve(net, None)
