"""What may be said about a layer view beside its model and layer."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch

from groupcc.views.geometry import Margin
from groupcc.views.lattice import Lattice
from groupcc.views.preprocess import PreprocessLike

__all__ = ["PHOTOGRAPHS", "VIEW_DEFAULTS", "ImageKind", "Orbit", "ViewOptions"]

Orbit = Literal["input", "map"]


class ViewOptions(TypedDict, total=False):
    """Options of `LayerView.open` that `harvest` and `causal_check` take too. Each may be left out.

    - `weights`: of a model given by name, as in [`resolve_model`][groupcc.views.resolve_model].
    - `device`: where the model runs; it is moved there. By default it stays where it is (named models: the CPU).
    - `input_size`: what the model sees, side or (height, width); by default that of tensors that are used as they are,
      or the named model's own, or 224.
    - `preprocess`: (mean, std) or a callable on [B, C, H, W], after the transform. By default that of the named
      model's weights, and none for float tensors.
    - `interpolation`: "bspline" (the default) reads maps by the quadratic B-spline, which smooths the same at every
      fraction of a pixel, so all blocks are resampled alike; "bilinear" doesn't.
    - `lattice`: stride, offset and receptive field of the layer, if they can't be measured.
    - `margin`: half the width in input pixels that must stay inside the image around a position; by default half the
      receptive field, "receptive_field".
    """

    weights: str | os.PathLike[str] | None
    device: str | torch.device | None
    input_size: int | tuple[int, int] | None
    preprocess: PreprocessLike
    interpolation: str
    lattice: Lattice | None
    margin: Margin


VIEW_DEFAULTS: ViewOptions = {
    "weights": None,
    "device": None,
    "input_size": None,
    "preprocess": None,
    "interpolation": "bspline",
    "lattice": None,
    "margin": "receptive_field",
}


@dataclass(frozen=True)
class ImageKind:
    """What kind of images a view is for.

    - `channels`: of an image; photographs have 3, RGB in [0, 1].
    - `size`: (height, width) of images that are used as they are; None for photographs, which are resized to the
      canvas that covers the model's input at every angle.
    - `ready`: whether values are what the model takes, so that without `preprocess` nothing is done to them.
    """

    channels: int = 3
    size: tuple[int, int] | None = None
    ready: bool = False


PHOTOGRAPHS = ImageKind()
