"""EfficientNet-Lite0 with its ImageNet weights."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from groupcc.errors import DataError
from groupcc.views.resolve import resolve_model
from groupcc.zoo import lite0, photographs

pytest.importorskip("timm")


@pytest.mark.parametrize(("name", "classes"), [("chelsea", {281, 282, 285}), ("coffee", {967}), ("rocket", {657})])
def test_photographs_are_recognised(name, classes):
    """A cat, an espresso, a missile: by ImageNet's numbers."""
    resolved = resolve_model("efficientnet_lite0")
    (pixels,) = (photograph.pixels for photograph in photographs() if photograph.name == name)
    side = min(pixels.shape[:2])
    top, left = ((length - side) // 2 for length in pixels.shape[:2])
    image = Image.fromarray(pixels[top : top + side, left : left + side]).resize(resolved.input_size, Image.BICUBIC)
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (resolved.mean, resolved.std))
    with torch.no_grad():
        assert int(resolved.model((x - mean) / std).argmax()) in classes


def test_random_weights_by_name():
    trained, random = (resolve_model("efficientnet_lite0", weights).model for weights in (None, "random"))
    assert not torch.equal(next(trained.parameters()), next(random.parameters()))


def test_a_missing_package_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    with pytest.raises(DataError, match=r"needs timm\. Run: pip install 'groupcc\[demo\]'"):
        lite0.efficientnet_lite0()
