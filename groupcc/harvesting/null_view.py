"""The view of a layer of the network with random weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import torch

from groupcc.errors import DataError
from groupcc.harvesting.canvas import load_canvas
from groupcc.harvesting.decode import DEFAULT_MAX_PIXELS, UnusableImageError
from groupcc.harvesting.sources import open_source
from groupcc.views import LayerView
from groupcc.views.fingerprints import model_fingerprint
from groupcc.views.random_weights import random_weights

__all__ = ["CALIBRATION_IMAGES", "random_view"]

CALIBRATION_IMAGES = 64
"""Images that batch norms are calibrated on: the first of them."""


def random_view(view: LayerView, images: Any, *, seed: int = 0, max_pixels: int = DEFAULT_MAX_PIXELS) -> LayerView:
    """Returns the same view of the same network with random weights (`random_weights`): a null.

    Its batch norms are calibrated on the first `CALIBRATION_IMAGES` of `images`, upright, as the view shows them. The
    geometry is that of the trained network: it follows from the architecture. Deterministic in `seed`.

    Example:

        view = groupcc.LayerView.open("bundled", "mixed3b", "D8")
        null = groupcc.harvest(groupcc.random_view(view, "photos/"), images="photos/")

    Raises:
        DataError: none of these images can be read.
    """
    source = open_source(images, max_pixels)
    view = view.suited(source.image_kind)
    canvases = []
    for item in islice(source.items(0), CALIBRATION_IMAGES):
        try:
            canvases.append(load_canvas(view, item)[0])
        except UnusableImageError:
            continue
    if not canvases:
        raise DataError(f"none of the first {CALIBRATION_IMAGES} images can be read, so nothing can be calibrated")
    with torch.no_grad():
        inputs = torch.cat([view.inputs(canvas[None], [view.group.identity]) for canvas in canvases])
    model = random_weights(view.model, inputs, seed=seed)
    name = f"{view.model_name} with random weights (seed {seed})"
    return replace(view, model=model, model_name=name, fingerprint=model_fingerprint(model))
