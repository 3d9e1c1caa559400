"""Patches before the network, turned and read at the pivot as in a harvest, with gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from groupcc.groups import as_action
from groupcc.groups.images import Frame
from groupcc.harvesting.harvest import harvest
from groupcc.harvesting.plan import Orbit
from groupcc.harvesting.store import OrbitStore
from groupcc.ops import orbit_gather
from groupcc.views.geometry import SOURCE_REACH, TAP_REACH, Geometry, plan_geometry
from groupcc.views.layers import LayerReader, evaluation_mode, parameter_kind
from groupcc.views.preprocess import Preprocess

__all__ = ["GREY", "PivotReader"]

GREY = 0.5
"""What lies around a patch."""

CROP_TOLERANCE = 1e-4
"""Largest difference, over the largest value, at which reading a part of the input counts as reading all of it."""


@dataclass(frozen=True)
class _Window:
    """The part of the model's input that is run: its first pixel (x, y), its (height, width), and where on its map the
    pivot lies."""

    first: tuple[int, int]
    size: tuple[int, int]
    pivot: tuple[int, int]


class PivotReader:
    """a_g of patches at the pivot of a store's geometry, under any elements of its group.

    Patches [n, C, side, side] lie on grey about the point that the image turns about; `side` covers what any element
    brings into the receptive field of what is read there. `read` runs the model on the window around the pivot where
    that changes nothing (tested once, on noise), and lets gradients through; `harvested` is `harvest` itself.
    """

    def __init__(self, model: nn.Module, store: OrbitStore, preprocess: Preprocess, channels: int) -> None:
        settings = store.index["settings"]
        self.model, self.store, self.preprocess, self.channels = model, store, preprocess, channels
        self.group = store.group
        self.orbit: Orbit = settings["orbit"]
        self.interpolation: str = settings["interpolation"]
        self.margin = settings["margin"]
        lattice = store.lattice
        self.geometry: Geometry = plan_geometry(
            lattice,
            store.geometry.input_size,
            canvas_size=None,
            interpolation=self.interpolation,
            margin=self.margin,
            turn_input=self.orbit == "input",
        )
        half = (lattice.receptive_field - 1) / 2 if self.margin == "receptive_field" else float(self.margin)
        self.reach = half + TAP_REACH[self.interpolation] * lattice.stride
        canvas = self.geometry.canvas_size[0]
        wanted = 2 * math.ceil(math.sqrt(2) * self.reach + SOURCE_REACH) + 1
        self.side = min(canvas, wanted + (canvas - wanted) % 2)
        self.reader = LayerReader(model, store.layer, gradients=True)
        self.dtype, self.device = parameter_kind(model)
        whole = _Window((0, 0), self.geometry.input_size, self.geometry.map_pivot)
        self.window = whole
        with evaluation_mode(model), torch.no_grad():
            self.window = self._smallest(whole)

    def read(self, patches: torch.Tensor, elements: list[int]) -> torch.Tensor:
        """a_g [n, len(elements), D], float32."""
        geometry, window = self.geometry, self.window
        centre = (geometry.input_pivot[0] - window.first[0], geometry.input_pivot[1] - window.first[1])
        frame = Frame(geometry.canvas_pivot, centre, window.size)
        turned = as_action(self.group).transform(self._canvas(patches).to(self.device), elements, frame)
        # Channels last: on the CPU, pooling with gradients takes a third of the time.
        inputs = self.preprocess(turned.flatten(0, 1)).to(self.dtype, memory_format=torch.channels_last)
        output = self.reader(inputs)
        maps = output.float().permute(0, 2, 3, 1)
        point = torch.tensor(window.pivot, dtype=torch.float64).expand(len(elements), 1, 2)
        return orbit_gather(maps.unflatten(0, (len(patches), len(elements))), point, self.interpolation)

    def harvested(self, patches: torch.Tensor) -> torch.Tensor:
        """a_g [n, G, D], every element, by `groupcc.harvest` with the store's settings."""
        found = harvest(
            self.model,
            self.store.layer,
            self._canvas(patches.detach()).cpu(),
            self.group,
            positions="centre",
            orbit=self.orbit,
            dtype="float32",
            input_size=self.geometry.input_size,
            preprocess=self.preprocess,
            interpolation=self.interpolation,
            lattice=self.store.lattice,
            margin=self.margin,
            progress=False,
        )
        return found[:]

    def _canvas(self, patches: torch.Tensor) -> torch.Tensor:
        around = (self.geometry.canvas_size[0] - self.side) // 2
        return F.pad(patches, (around,) * 4, value=GREY)

    def _smallest(self, whole: _Window) -> _Window:
        """The window around what is read, where that gives what the whole input gives."""
        window = self._around()
        if window is None:
            return whole
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, self.channels, self.side, self.side, generator=generator)
        expected = self.read(noise, [self.group.identity])
        self.window = window
        try:
            found = self.read(noise, [self.group.identity])
        except (RuntimeError, ValueError):  # a model for one input size alone
            return whole
        return window if (found - expected).abs().max() <= CROP_TOLERANCE * expected.abs().max() else whole

    def _around(self) -> _Window | None:
        """Cut by multiples of the stride, so that the map's pixels stay where they are."""
        geometry, stride = self.geometry, self.geometry.lattice.stride
        if stride != int(stride):
            return None
        step, cut = int(stride), []
        for centre, limit, pivot in zip(
            geometry.input_pivot, geometry.input_size[::-1], geometry.map_pivot, strict=True
        ):
            before = max(0, math.floor((centre - self.reach) / step))
            after = max(0, math.floor((limit - 1 - centre - self.reach) / step))
            cut.append((before * step, limit - (before + after) * step, pivot - before))
        (x, width, u), (y, height, v) = cut
        return _Window((x, y), (height, width), (u, v))
