"""Patches before the network, turned and read at the pivot as in a harvest, with gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F

from groupcc.harvesting.harvest import harvest
from groupcc.views import LayerView
from groupcc.views.geometry import SOURCE_REACH, TAP_REACH, Geometry

__all__ = ["GREY", "PivotReader"]

GREY = 0.5
"""What lies around a patch."""

CROP_TOLERANCE = 1e-4
"""Largest difference, over the largest value, at which reading a part of the input counts as reading all of it."""


class PivotReader:
    """a_g of patches at the pivot of a view's geometry, under any elements of its group.

    Patches [n, C, side, side] lie on grey about the point that the image turns about; `side` covers what any element
    brings into the receptive field of what is read there. `read` runs the model on the window around the pivot if
    that changes nothing (tested once, on noise), and lets gradients through; `harvested` is `harvest` itself.
    """

    def __init__(self, view: LayerView) -> None:
        self.whole = view
        lattice, margin = view.geometry.lattice, view.margin
        half = (lattice.receptive_field - 1) / 2 if margin == "receptive_field" else float(margin)
        self.reach = half + TAP_REACH[self.whole.interpolation] * lattice.stride
        canvas = self.whole.geometry.canvas_size[0]
        wanted = 2 * math.ceil(math.sqrt(2) * self.reach + SOURCE_REACH) + 1
        self.side = min(canvas, wanted + (canvas - wanted) % 2)
        # Channels last: on the CPU, pooling with gradients takes a third of the time.
        self.view = replace(self.whole, memory_format=torch.channels_last)
        with torch.no_grad():
            self.view = self._smallest(self.view)

    def read(self, patches: torch.Tensor, elements: list[int]) -> torch.Tensor:
        """a_g [n, len(elements), D], float32."""
        return self._read(self.view, patches, elements)

    def harvested(self, patches: torch.Tensor) -> torch.Tensor:
        """a_g [n, G, D], every element, by `groupcc.harvest` with the store's settings."""
        canvases = self._canvas(patches.detach()).cpu()
        return harvest(self.whole, images=canvases, positions="centre", dtype="float32", progress=False)[:]

    def _read(self, view: LayerView, patches: torch.Tensor, elements: list[int]) -> torch.Tensor:
        maps = view.maps(self._canvas(patches), elements).float()
        points = view.points([view.geometry.map_pivot])[elements]
        return view.read(maps, points)

    def _canvas(self, patches: torch.Tensor) -> torch.Tensor:
        around = (self.whole.geometry.canvas_size[0] - self.side) // 2
        return F.pad(patches, (around,) * 4, value=GREY)

    def _smallest(self, view: LayerView) -> LayerView:
        """The view of the window around what is read, if it gives what the view of the whole input gives."""
        part = self._around()
        if part is None:
            return view
        smaller = replace(view, geometry=part)
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, view.images.channels, self.side, self.side, generator=generator)
        upright = [view.group.identity]
        expected = self._read(view, noise, upright)
        try:
            read = self._read(smaller, noise, upright)
        except (RuntimeError, ValueError):  # a model for one input size alone
            return view
        return smaller if (read - expected).abs().max() <= CROP_TOLERANCE * expected.abs().max() else view

    def _around(self) -> Geometry | None:
        """Cut by multiples of the stride, so that the map's pixels stay where they are."""
        geometry = self.whole.geometry
        stride = geometry.lattice.stride
        if stride != int(stride):
            return None
        step, cut = int(stride), []
        for centre, limit in zip(geometry.input_pivot, geometry.input_size[::-1], strict=True):
            before = max(0, math.floor((centre - self.reach) / step))
            after = max(0, math.floor((limit - 1 - centre - self.reach) / step))
            cut.append((before * step, limit - (before + after) * step))
        (x, width), (y, height) = cut
        return geometry.part((x, y), (height, width))
