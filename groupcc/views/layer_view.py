"""LayerView: a model, one of its layers and a group's action as one object that turns images into maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy.typing as npt
import torch
from torch import nn

from groupcc import _defaults
from groupcc.devices import move
from groupcc.errors import DataError, argument_error, check_choice, check_options, is_whole
from groupcc.groups import Action, Group, PlaneAction, as_action
from groupcc.ops import orbit_gather
from groupcc.views.geometry import Geometry, Margin, plan_geometry, sampling_points
from groupcc.views.lattice import Lattice, measure_lattice
from groupcc.views.layers import LayerReader, evaluation_mode, find_layer, parameter_kind, probe_layer
from groupcc.views.layout import FeatureMaps, Layout
from groupcc.views.options import PHOTOGRAPHS, VIEW_DEFAULTS, ImageKind, Orbit, ViewOptions
from groupcc.views.preprocess import Preprocess, parse_preprocess
from groupcc.views.resolve import ResolvedModel, layer_alias, resolve

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["DEFAULT_GROUP", "LayerView", "measured_view"]

DEFAULT_GROUP = _defaults.GROUP
"""The group if none is named."""


@dataclass(frozen=True, eq=False)
class LayerView:
    """Turns images into maps of one layer under every element of a group, and reads the maps at positions.

    Model, layer, layout, preprocessing, geometry and action in one object, made by
    [`LayerView.open`][groupcc.LayerView.open]. `harvest` and `causal_check` take it in place of model and layer.

    For the input orbit (`orbit` "input", Gorton 2024) a_g(p) = A_g(g·p) with A_g = layer(T_g x): the model runs on
    every transform. For the activation-map orbit ("map") a_g(p) = A(g·p) on the one map A = layer(x).

    Example: the orbits of an image's positions are what the maps say at the points.

        view = groupcc.LayerView.open("bundled", "mixed3b", "D4")
        with torch.no_grad():
            maps = view.maps(torch.rand(1, 3, *view.geometry.canvas_size))
        acts = view.read(maps, view.points(view.geometry.candidates))

    `maps` is [1, 8, 33, 33, 80]: one image, 8 elements, 33 x 33 map pixels, 80 channels. `acts` is [P, 8, 80]. A
    crosscoder encodes the two without forming `acts`: `crosscoder.encode_maps(maps, points, view.interpolation)`.

    - `model`, `model_name`, `fingerprint`: the network, its name and the hash of its weights.
    - `layer`, `layout`, `d_in`: the layer's dotted name, how its output is laid out, its channels D.
    - `images`: what kind of images it is for ([`ImageKind`][groupcc.views.ImageKind]).
    - `preprocess`, `geometry`, `action`, `interpolation`, `margin`: as `open` found them.
    - `memory_format`: of what the model is given.
    """

    model: nn.Module
    model_name: str
    fingerprint: str
    layer: str
    layout: Layout
    d_in: int
    images: ImageKind
    preprocess: Preprocess
    geometry: Geometry
    action: Action
    orbit: Orbit
    interpolation: str
    margin: Margin
    memory_format: torch.memory_format = torch.preserve_format

    @classmethod
    def open(
        cls,
        model: nn.Module | str,
        layer: str,
        group: str | Group | Action = DEFAULT_GROUP,
        *,
        orbit: Orbit = "input",
        images: ImageKind = PHOTOGRAPHS,
        **options: Unpack[ViewOptions],
    ) -> LayerView:
        """Finds out all that is needed to read a layer: runs the model once, and measures the layer's lattice.

        Args:
            model: an `nn.Module` (used where it is, in its own dtype), or a name for `resolve_model`, with `weights`.
            layer: dotted name of a module that gives maps [B, C, H, W].
            group: "C<n>", "D<n>" or a planar Group, which turns images; or any other `Action`.
            orbit: "input" or "map".
            images: what will be shown to it.
            options: [`ViewOptions`][groupcc.views.ViewOptions].

        Raises:
            ArgumentError: an argument is wrong, the layer has no lattice, or no position is safe.
        """
        check_options(cls.open, options, VIEW_DEFAULTS)
        action = as_action(group)
        return measured_view(resolve(model, options.get("weights")), layer, action, images, orbit, options)

    @property
    def group(self) -> Group:
        """The group whose elements `action` moves."""
        return self.action.group

    @property
    def elements(self) -> list[int]:
        """The elements that the model runs on for one orbit: all of them, or the identity alone for a map orbit."""
        return [self.group.identity] if self.orbit == "map" else list(range(self.group.order))

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return parameter_kind(self.model)[1]

    def suited(self, images: ImageKind) -> LayerView:
        """This view for images of another kind: the same model, layer and lattice, another canvas.

        Raises:
            ArgumentError: another number of channels; or no position is safe on such images.
        """
        if images.channels != self.images.channels:
            raise argument_error(
                "images",
                expected=f"{self.images.channels} channels, which the view was made for",
                got=f"{images.channels} channels",
                remedy="LayerView.open(..., images=ImageKind(channels=...)) makes a view for others.",
            )
        if images.size == self.images.size:
            return self
        geometry = plan_geometry(
            self.geometry.lattice,
            self.geometry.input_size,
            canvas_size=images.size,
            interpolation=self.interpolation,
            margin=self.margin,
            turn_input=_turns_input(self.action, self.orbit),
        )
        return replace(self, images=images, geometry=geometry)

    # From images to maps

    def inputs(self, images: torch.Tensor, elements: Sequence[int] | None = None) -> torch.Tensor:
        """T_g x as the model takes it, for each of `elements` (None: all): [B, C, h, w] → [B·S, C', H, W].

        The transform comes first, then the preprocessing: pointwise, it commutes with every transform, and fill is
        never normalised. Rows are image by image, in the model's dtype and on its device.
        """
        dtype, device = parameter_kind(self.model)
        turned = self.action.transform(images.to(device), elements, self.geometry.frame)
        return self.preprocess(turned.flatten(0, 1)).to(dtype, memory_format=self.memory_format)

    def run(
        self,
        inputs: torch.Tensor,
        elements: Sequence[int] | None = None,
        *,
        at_once: int | None = None,
        names: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """The layer's maps of what `inputs` gave for these elements, [B·S, H, W, D] in at least float32.

        `at_once`: inputs in one forward pass; None is all of them. `names`: of the images, for the error. The model
        runs in eval mode and is left in the mode that it was in. Gradients flow if they are enabled.

        Raises:
            DataError: the layer gives NaN or infinity (it names the image and the element), or maps of another size
                than when it was measured.
        """
        with evaluation_mode(self.model):
            parts = [self._reader.maps(part) for part in inputs.split(at_once or max(len(inputs), 1))]
        maps = torch.cat(parts) if len(parts) > 1 else parts[0]
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        finite = maps.detach().flatten(1).isfinite().all(1)
        if not finite.all():
            chosen = self.action.chosen(elements)
            image, element = divmod(int((~finite).nonzero()[0]), len(chosen))
            raise DataError(
                f"{self.layer} gives NaN or infinity for image {names[image] if names else image!r} under element "
                f"{self.group.element_names[chosen[element]]}. Check the model's weights, or its dtype "
                f"({inputs.dtype})."
            )
        measured = self.geometry.lattice.map_size
        if measured not in (None, maps.shape[1:3]):
            raise DataError(
                f"{self.layer} gives maps of {tuple(maps.shape[1:3])} pixels, and gave {tuple(measured)} when it was "
                f"measured. Check that `transform` of the action {self.action.kind!r} returns what its `frame` shows, "
                "and that the model's maps have one size for inputs of one size."
            )
        return maps

    def maps(
        self, images: torch.Tensor, elements: Sequence[int] | None = None, *, names: Sequence[str] | None = None
    ) -> torch.Tensor:
        """layer(T_g x) for each of `elements`, [B, S, H, W, D] in at least float32; errors and gradients as in `run`.

        `elements` None: those that the orbit needs. What `orbit_gather`, `orbit_encode` and `encode_maps` take.
        """
        chosen = self.elements if elements is None else elements
        maps = self.run(self.inputs(images, chosen), chosen, names=names)
        return maps.unflatten(0, (len(images), -1))

    def points(self, positions: npt.ArrayLike) -> torch.Tensor:
        """Where each element finds each position on its map: [P, 2] → float64 [G, P, 2], (x, y) in map pixels."""
        return sampling_points(self.geometry, self.action, positions)

    def read(self, maps: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Maps [B, S, H, W, D] at points [S, P, 2] (S = 1: at [G, P, 2]) → [B·P, G, D], see `ops.orbit_gather`."""
        return orbit_gather(maps, points, self.interpolation)

    @torch.no_grad()
    def orbits(
        self,
        images: torch.Tensor,
        positions: Sequence[npt.ArrayLike],
        *,
        forward_batch: int = 16,
        names: Sequence[str] | None = None,
    ) -> torch.Tensor:
        """The orbits of each image at its own positions, B times [P, 2]: float32 [B, P, G, D] on the CPU.

        About `forward_batch` transformed images go through the model at once. No gradients; errors as in `run`.
        """
        images = images.to(self.device)
        points = [self.points(places) for places in positions]
        orbits_BPGD = torch.empty(len(images), points[0].shape[1], self.group.order, self.d_in)
        for elements, blocks in self._passes(max(1, forward_batch // len(images))):
            maps = self.maps(images, elements, names=names)
            for b, points_GP2 in enumerate(points):
                orbits_BPGD[b, :, blocks] = self.read(maps[b : b + 1], points_GP2[blocks]).cpu()
        return orbits_BPGD

    def _passes(self, at_once: int) -> Iterator[tuple[list[int], slice]]:
        """Which elements the model runs on together, and which blocks of the orbit are read from their maps."""
        elements = self.elements
        for first in range(0, len(elements), at_once):
            chosen = elements[first : first + at_once]
            yield chosen, slice(None) if self.orbit == "map" else slice(first, first + len(chosen))

    @cached_property
    def _reader(self) -> LayerReader:
        return LayerReader(self.model, self.layer, self.layout, gradients=True)

    # What it is

    def record(self) -> dict[str, Any]:
        """All of the view that decides what it reads, as plain values; `OrbitStore` keeps it among its settings."""
        record = {
            "model": self.model_name,
            "fingerprint": self.fingerprint,
            "layer": self.layer,
            "input_size": list(self.geometry.input_size),
            "group": self.group.name,
            "orbit": self.orbit,
            "interpolation": self.interpolation,
            "margin": self.margin,
            "lattice": asdict(self.geometry.lattice),
            "preprocess": self.preprocess.describe(),
        }
        # Stores from before there were other kinds have neither of these, and mean the usual ones.
        if self.action.kind != PlaneAction.kind:
            record["action"] = self.action.kind
        if self.layout.name != FeatureMaps.name:
            record["layout"] = self.layout.name
        return record

    def describe(self) -> str:
        """One line: the layer's channels, map and lattice."""
        lattice, size = self.geometry.lattice, self.geometry.input_size
        map_size = "unknown" if lattice.map_size is None else f"{lattice.map_size[0]} x {lattice.map_size[1]}"
        return (
            f"{self.layer} of {self.model_name}: {self.d_in} channels, map {map_size} at {size[0]} x {size[1]} "
            f"pixels; map pixel u is centred on input pixel {lattice.stride:g}u + {lattice.offset:g}, "
            f"receptive field {lattice.receptive_field} pixels"
        )


def measured_view(
    resolved: ResolvedModel,
    layer: str,
    action: Action,
    images: ImageKind,
    orbit: Orbit,
    options: ViewOptions,
    known_lattice: Callable[[dict[str, Any]], Lattice | None] = lambda identity: None,
) -> LayerView:
    """`LayerView.open` of a model that is at hand.

    `known_lattice` is asked before the lattice is measured, which takes seconds, with what identifies model and layer
    in a record; None is for one that must be measured.
    """
    given: Any = {**VIEW_DEFAULTS, **options}
    check_choice("orbit", orbit, get_args(Orbit), '"input" is the paper\'s.')
    if orbit == "map" and not action.moves:
        raise argument_error(
            "orbit",
            expected='"input" with an action that moves no position',
            got=orbit,
            remedy="On one map every element would read the same pixel.",
        )
    layer = layer_alias(resolved.model, layer)
    find_layer(resolved.model, layer)
    size = _input_size(given["input_size"], images, resolved)
    pixels = parse_preprocess(given["preprocess"], None if images.ready else (resolved.mean, resolved.std))
    identity = {
        "model": resolved.name,
        "fingerprint": resolved.fingerprint,
        "layer": layer,
        "input_size": list(size),
    }
    move(resolved.model, given["device"])
    probe = _probe(resolved.model, pixels, images.channels, size)
    with evaluation_mode(resolved.model):
        layout, (d_in, *map_size) = probe_layer(resolved.model, layer, probe)
    lattice = given["lattice"] or known_lattice(identity)
    lattice = lattice or measure_lattice(resolved.model, layer, size, channels=int(probe.shape[1]))
    geometry = plan_geometry(
        replace(lattice, map_size=(map_size[0], map_size[1])),
        size,
        canvas_size=images.size,
        interpolation=given["interpolation"],
        margin=given["margin"],
        turn_input=_turns_input(action, orbit),
    )
    return LayerView(
        model=resolved.model,
        model_name=resolved.name,
        fingerprint=resolved.fingerprint,
        layer=layer,
        layout=layout,
        d_in=d_in,
        images=images,
        preprocess=pixels,
        geometry=geometry,
        action=action,
        orbit=orbit,
        interpolation=given["interpolation"],
        margin=given["margin"],
    )


def _turns_input(action: Action, orbit: Orbit) -> bool:
    """Whether the model sees images turned, so that the canvas must cover every angle."""
    return action.moves and orbit == "input"


def _probe(model: nn.Module, preprocess: Preprocess, channels: int, size: tuple[int, int]) -> torch.Tensor:
    """One image of noise as the model takes it."""
    dtype, device = parameter_kind(model)
    with torch.no_grad():
        noise = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
        return preprocess(noise).to(device, dtype)


def _input_size(given: int | tuple[int, int] | None, images: ImageKind, resolved: ResolvedModel) -> tuple[int, int]:
    if given is None:
        return images.size or resolved.input_size
    sides = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise argument_error(
            "input_size", expected="a side or (height, width) in pixels", got=given, remedy="For example 224."
        )
    return sides[0], sides[1]
