"""Models by name: torchvision's, those of the zoo, or anything that can be imported and called."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groupcc.errors import DataError, GroupccWarning, argument_error
from groupcc.views.fingerprints import model_fingerprint

__all__ = ["ResolvedModel", "layer_alias", "resolve", "resolve_model"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
DEFAULT_INPUT_SIZE = 224
BUNDLED_INPUT_SIZE = 129
_NAMES = '"bundled", "efficientnet_lite0", a torchvision name or "package.module:callable"'


@dataclass(frozen=True)
class ResolvedModel:
    """A model with what it wants to see: RGB in [0, 1] of `input_size` (height, width), minus `mean`, over `std`."""

    model: nn.Module
    name: str
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @cached_property
    def fingerprint(self) -> str:
        """The hash of its weights, made once: it goes into every record."""
        return model_fingerprint(self.model)


def resolve(model: nn.Module | str, weights: str | os.PathLike[str] | None) -> ResolvedModel:
    """Returns a model by name, or one that is already built, which is used as its `pretrained_cfg` says.

    timm's models have a `pretrained_cfg`: input size, mean and standard deviation. A model without one wants 224 x 224
    pixels as they are.
    """
    if not isinstance(model, nn.Module):
        return resolve_model(model, weights)
    if weights is not None:
        raise argument_error(
            "weights",
            expected="None with a model that is already built",
            got=weights,
            remedy="Load them into the model first, or give the model by name.",
        )
    return _as_configured(model, type(model).__name__)


def _as_configured(model: nn.Module, name: str) -> ResolvedModel:
    """Returns the model with the preprocessing of its `pretrained_cfg`, or with none."""
    size = (DEFAULT_INPUT_SIZE, DEFAULT_INPUT_SIZE)
    config = getattr(model, "pretrained_cfg", None)
    if config is None:
        return ResolvedModel(model, name, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    try:
        height, width = config["input_size"][1:]
        mean, std = (tuple(float(value) for value in config[key]) for key in ("mean", "std"))
    except (KeyError, TypeError, ValueError) as error:
        raise argument_error(
            "model",
            expected="a pretrained_cfg with input_size (channels, height, width), mean and std, as timm's models have",
            got=f"{config!r} ({error!r})",
            remedy="Correct or delete the attribute.",
        ) from error
    return ResolvedModel(model, name, (int(height), int(width)), mean, std)


def resolve_model(spec: str, weights: str | os.PathLike[str] | None = None) -> ResolvedModel:
    """The model that a name stands for, in eval mode on the CPU.

    - `"bundled"`: the small net that comes with groupcc, with its own weights.
    - `"efficientnet_lite0"`: [`efficientnet_lite0`][groupcc.zoo.efficientnet_lite0] with its ImageNet weights and its
      preprocessing; `weights` may be a file, or `"random"`.
    - a torchvision name (`"googlenet"`, `"resnet18"`, ...): `weights` is `"DEFAULT"` (torchvision's, downloaded once),
      a file, or `"random"` (untrained, with a warning). Mean, standard deviation and input size are those of
      torchvision's default weights.
    - `"package.module:callable"`: called without arguments, must return an `nn.Module`; sees RGB in [0, 1] at
      224 x 224 unless its `pretrained_cfg` (timm's) says otherwise. The current directory is searched too. `weights`
      may be a file.

    Files are .safetensors, or PyTorch's .pt and .pth, read with `weights_only=True`: no code in them is run.

    Raises:
        ArgumentError: an unknown name (the nearest ones are given), missing or impossible `weights`.
        DataError: a file that is missing, damaged or doesn't fit the model; a download that failed.
    """
    if not isinstance(spec, str) or not spec:
        raise argument_error(
            "model",
            expected=f"an nn.Module, {_NAMES}",
            got=spec,
            remedy='For example model="googlenet" with weights="DEFAULT".',
        )
    if spec in _ZOO:
        return _ZOO[spec](weights)
    if ":" in spec:
        return _imported(spec, weights)
    return _torchvision(spec, weights)


def layer_alias(model: nn.Module, layer: str) -> str:
    """The paper's name of a layer (`mixed3b`) as torchvision's GoogLeNet calls it (`inception3b`), with a warning.

    Other models and names come back as they are.
    """
    match = re.fullmatch(r"mixed_?(3[ab]|4[a-e]|5[ab])", layer) if isinstance(layer, str) else None
    if match is None or type(model).__name__ != "GoogLeNet" or layer in dict(model.named_modules()):
        return layer
    alias = f"inception{match[1]}"
    warnings.warn(
        f"{layer!r} taken as torchvision's {alias!r}: the same place in the same architecture, but not the network of "
        "the paper (Lucid's InceptionV1 has other weights, no batch norm, and TensorFlow's paddings, which put "
        "mixed3b's pixels at 8u + 7, not 8u + 6).",
        GroupccWarning,
        stacklevel=3,
    )
    return alias


def _bundled(weights: str | os.PathLike[str] | None) -> ResolvedModel:
    from groupcc.zoo import load_net

    if weights == "random":
        raise argument_error(
            "weights", expected="None or a file for the bundled net", got="random", remedy="Leave it out."
        )
    model = load_net() if weights in (None, "DEFAULT") else load_net(weights)  # type: ignore[arg-type]
    # It normalises inside.
    size = (BUNDLED_INPUT_SIZE, BUNDLED_INPUT_SIZE)
    return ResolvedModel(model.eval(), "bundled", size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _lite0(weights: str | os.PathLike[str] | None) -> ResolvedModel:
    from groupcc.zoo import efficientnet_lite0

    model = efficientnet_lite0(pretrained=weights in (None, "DEFAULT"))
    if weights == "random":
        warnings.warn("efficientnet_lite0 with random weights: it has learned nothing.", GroupccWarning, stacklevel=4)
    elif weights not in (None, "DEFAULT"):
        _load(model, _read_state(Path(weights)), Path(weights))
    return _as_configured(model, "efficientnet_lite0")


_ZOO: dict[str, Callable[[str | os.PathLike[str] | None], ResolvedModel]] = {
    "bundled": _bundled,
    "efficientnet_lite0": _lite0,
}


def _imported(spec: str, weights: str | os.PathLike[str] | None) -> ResolvedModel:
    module_name, _, attribute = spec.partition(":")
    here = os.getcwd()
    added = here not in sys.path
    if added:  # a console script doesn't have the current directory on its path, as `python -m` does
        sys.path.append(here)
    try:
        target: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            target = getattr(target, part)
        model = target() if not isinstance(target, nn.Module) else target
    except Exception as error:
        raise argument_error(
            "model",
            expected='"package.module:callable", something that can be imported and called without arguments',
            got=f"{spec!r}, which gave {type(error).__name__}: {error}",
            remedy="Install the package, or wrap the call in a function of your own without arguments.",
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not isinstance(model, nn.Module):
        raise argument_error(
            "model",
            expected=f"an nn.Module from {spec!r}",
            got=f"a {type(model).__name__}",
            remedy="Name a class or function that returns the model.",
        )
    if weights in ("DEFAULT", "random"):
        raise argument_error(
            "weights",
            expected="None or a file for an imported model",
            got=weights,
            remedy="The callable decides which weights its model has.",
        )
    if weights is not None:
        _load(model, _read_state(Path(weights)), Path(weights))
    return _as_configured(model.eval(), spec)


def _torchvision(name: str, weights: str | os.PathLike[str] | None) -> ResolvedModel:
    try:
        from torchvision import models
    except ImportError as error:
        raise argument_error(
            "model",
            expected="torchvision for a model by name",
            got=f"{name!r}, and torchvision can't be imported ({error})",
            remedy="pip install 'groupcc[vision]'",
        ) from error
    known = models.list_models()
    if name not in known:
        nearest = difflib.get_close_matches(name.lower(), [*known, *_ZOO], n=3, cutoff=0.5)
        hint = f"Nearest: {', '.join(nearest)}. " if nearest else ""
        raise argument_error(
            "model",
            expected=_NAMES,
            got=name,
            remedy=f"{hint}torchvision.models.list_models() gives all {len(known)} names.",
        )
    default = models.get_model_weights(name).DEFAULT
    mean, std, size = _preprocessing(default)
    if weights is None:
        raise argument_error(
            "weights",
            expected=f'"DEFAULT", a file or "random" for {name}',
            got="None",
            remedy='"DEFAULT" downloads torchvision\'s weights; "random" leaves the model untrained.',
        )
    if weights == "random":
        warnings.warn(f"{name} with random weights: it has learned nothing.", GroupccWarning, stacklevel=4)
        model = _build(models, name, {})
    elif weights == "DEFAULT":
        try:
            model = models.get_model(name, weights=default)
        except Exception as error:
            raise DataError(
                f"torchvision's weights of {name} couldn't be downloaded ({type(error).__name__}: {error}). "
                f"Where there is a network, fetch {default.url}, and give the file as weights=FILE."
            ) from error
    else:
        state = _read_state(Path(weights))
        model = _build(models, name, state)
        _load(model, state, Path(weights))
    for head in ("aux1", "aux2", "AuxLogits"):
        # They hang off the middle of the network and are never run in eval mode.
        if name in ("googlenet", "inception_v3") and getattr(model, head, None) is not None:
            setattr(model, head, None)
            model.aux_logits = False  # type: ignore[assignment]
    return ResolvedModel(model.eval(), name, size, mean, std)


def _build(models: Any, name: str, state: Mapping[str, Any]) -> nn.Module:
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        # What torchvision does for its published weights.
        options = {
            "init_weights": False,
            "transform_input": True,
            "aux_logits": any(key.startswith(("aux1.", "aux2.", "AuxLogits.")) for key in state),
        }
    elif "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options = {"weights_backbone": None}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def _preprocessing(weights: Any) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, int]]:
    transforms = weights.transforms()
    mean = tuple(float(value) for value in getattr(transforms, "mean", IMAGENET_MEAN))
    std = tuple(float(value) for value in getattr(transforms, "std", IMAGENET_STD))
    crop = getattr(transforms, "crop_size", None) or [DEFAULT_INPUT_SIZE]
    side = int(crop[0]) if isinstance(crop, (list, tuple)) else int(crop)
    return mean, std, (side, side)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise DataError(f"weights: {path} is not a file. Give a .safetensors, .pt or .pth file.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        raise DataError(
            f"weights: {path} can't be read as tensors ({type(error).__name__}: {first}). A damaged download, or a "
            "whole pickled model, which is never unpickled here: save model.state_dict(), best as .safetensors."
        ) from error
    for wrapper in ("state_dict", "model_state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise DataError(f"weights: {path} holds no state dict. Save model.state_dict().")
    if state and all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _load(model: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    own = model.state_dict()
    problems = [
        ("missing", [key for key in own if key not in state and not key.endswith("num_batches_tracked")]),
        ("unexpected", [key for key in state if key not in own]),
        (
            "of another shape",
            [
                f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
                for key in own
                if key in state and state[key].shape != own[key].shape
            ],
        ),
    ]
    told = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in problems
        if keys
    ]
    if told:
        raise DataError(
            f"weights: {path} doesn't fit {type(model).__name__}: {'; '.join(told)}. "
            "Give the file that belongs to this model."
        )
    # Only batch norms' counters may be absent (old files lack them), and they play no part in eval mode.
    model.load_state_dict(state, strict=False)
