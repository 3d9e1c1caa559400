"""Everything that a harvest decides before it starts: model, layer, lattice, geometry, sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from groupcc.devices import move
from groupcc.errors import argument_error, check_choice, is_whole
from groupcc.groups import Group
from groupcc.groups import group as make_group
from groupcc.harvesting.decode import DEFAULT_MAX_PIXELS
from groupcc.harvesting.shards import DTYPES, Layout
from groupcc.harvesting.sources import Source, open_source
from groupcc.harvesting.writer import resumable_index
from groupcc.views.fingerprints import model_fingerprint
from groupcc.views.geometry import Geometry, Margin, PositionRule, parse_positions, plan_geometry
from groupcc.views.lattice import Lattice, measure_lattice
from groupcc.views.layers import evaluation_mode, find_layer, parameter_kind, probe_layer
from groupcc.views.preprocess import Preprocess, PreprocessLike, parse_preprocess
from groupcc.views.resolve import DEFAULT_INPUT_SIZE, ResolvedModel, layer_alias, resolve_model

__all__ = ["HarvestPlan", "Orbit", "plan_harvest", "resolve"]

Orbit = Literal["input", "map"]

SHARD_BYTES = 64_000_000
SHARD_IMAGES = 64
MAX_SHARDS = 256


@dataclass(frozen=True)
class HarvestPlan:
    """What `harvest` is going to do; `settings` is the part that decides the numbers in the store."""

    model: nn.Module
    layer: str
    source: Source
    group: Group
    geometry: Geometry
    rule: PositionRule
    preprocess: Preprocess
    layout: Layout
    orbit: Orbit
    interpolation: str
    seed: int
    images: int | None
    shard_images: int
    settings: dict[str, Any]


def plan_harvest(
    model: nn.Module | str,
    layer: str,
    images: Any,
    group: str | Group,
    *,
    weights: Any,
    device: str | torch.device | None,
    input_size: int | tuple[int, int] | None,
    preprocess: PreprocessLike,
    seed: int,
    interpolation: str,
    lattice: Lattice | None,
    margin: Margin,
    max_images: int | None,
    positions: str = "all",
    out: Path | None = None,
    orbit: Orbit = "input",
    dtype: str | torch.dtype = "float32",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    shard_images: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> HarvestPlan:
    """Resolves and checks every argument of `harvest`, and measures the layer's lattice.

    Without a store, what only that needs may be left out: every position of input orbits, and nothing is said.
    """
    check_choice("orbit", orbit, get_args(Orbit), '"input" is the paper\'s.')
    storage = str(dtype).removeprefix("torch.")
    if storage not in DTYPES:
        raise argument_error("dtype", expected=", ".join(DTYPES), got=storage, remedy='"float16" is the default.')
    for name, value in (("max_images", max_images), ("shard_images", shard_images)):
        if value is not None and not is_whole(value, 1):
            raise argument_error(
                name, expected="a whole number of at least 1, or None", got=value, remedy="Leave it out for no limit."
            )
    if not is_whole(seed, 0):
        raise argument_error("seed", expected="a whole number of at least 0", got=seed, remedy="0 is the default.")
    rule = parse_positions(positions)
    elements = make_group(group)
    resolved = resolve(model, weights)
    layer = layer_alias(resolved.model, layer)
    find_layer(resolved.model, layer)
    source = open_source(images, max_pixels)
    size = _input_size(input_size, source, resolved)
    as_given = source.tensor_shape is not None and not source.from_bytes
    pixels = parse_preprocess(preprocess, None if as_given else (resolved.mean, resolved.std))
    fingerprint = model_fingerprint(resolved.model)
    move(resolved.model, device)

    channels = source.tensor_shape[0] if source.tensor_shape else 3
    kind, device = parameter_kind(resolved.model)
    with evaluation_mode(resolved.model), torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        probe = pixels(torch.rand(1, channels, *size, generator=generator)).to(device, kind)
        d_in, *map_size = probe_layer(resolved.model, layer, probe)
    identity = {
        "model": resolved.name,
        "fingerprint": fingerprint,
        "layer": layer,
        "input_size": list(size),
    }
    if lattice is None:
        lattice = _recorded_lattice(out, identity) or measure_lattice(
            resolved.model, layer, size, channels=int(probe.shape[1])
        )
    lattice = replace(lattice, map_size=(map_size[0], map_size[1]))
    canvas_size = None if source.tensor_shape is None else source.tensor_shape[1:]
    geometry = plan_geometry(
        lattice, size, canvas_size=canvas_size, interpolation=interpolation, margin=margin, turn_input=orbit == "input"
    )
    per_image = rule.per_image(geometry)
    if per_image > len(geometry.candidates):
        raise argument_error(
            "positions",
            expected=f"at most {len(geometry.candidates)} positions, all that are inside the safe disc",
            got=positions,
            remedy='Use "all", or a larger input_size.',
        )
    layout = Layout(per_image, elements.order, d_in, geometry.canvas_size, storage)
    count = source.count if max_images is None else min(max_images, source.count or max_images)
    settings = identity | {
        "group": elements.name,
        "orbit": orbit,
        "positions": positions,
        "seed": seed,
        "interpolation": interpolation,
        "margin": margin,
        "lattice": asdict(lattice),
        "preprocess": pixels.describe(),
        "dtype": storage,
        "images": {"kind": source.kind, "count": source.count, "fingerprint": source.fingerprint},
        "max_images": max_images,
    }
    say(
        f"{layer} of {resolved.name}: {d_in} channels, map {map_size[0]} x {map_size[1]} at {size[0]} x {size[1]} "
        f"pixels; map pixel u is centred on input pixel {lattice.stride:g}u + {lattice.offset:g}, "
        f"receptive field {lattice.receptive_field} pixels"
    )
    say(
        f"{len(geometry.candidates)} of {map_size[0] * map_size[1]} positions are inside the safe disc "
        f"(radius {geometry.radius:.1f} map pixels); {per_image} used in each image ({positions})"
    )
    return HarvestPlan(
        model=resolved.model,
        layer=layer,
        source=source,
        group=elements,
        geometry=geometry,
        rule=rule,
        preprocess=pixels,
        layout=layout,
        orbit=orbit,
        interpolation=interpolation,
        seed=seed,
        images=count,
        shard_images=shard_images or _shard_images(layout, count),
        # As JSON gives it back, so that what is compared with a store's index is of the same types.
        settings=json.loads(json.dumps(settings)),
    )


def resolve(model: nn.Module | str, weights: Any) -> ResolvedModel:
    """A model by name, or one that is already built."""
    if not isinstance(model, nn.Module):
        return resolve_model(model, weights)
    if weights is not None:
        raise argument_error(
            "weights",
            expected="None with a model that is already built",
            got=weights,
            remedy="Load them into the model first, or give the model by name.",
        )
    size = (DEFAULT_INPUT_SIZE, DEFAULT_INPUT_SIZE)
    return ResolvedModel(model, type(model).__name__, size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _input_size(given: int | tuple[int, int] | None, source: Source, resolved: ResolvedModel) -> tuple[int, int]:
    if given is None:
        return source.tensor_shape[1:] if source.tensor_shape else resolved.input_size
    sides = tuple(given) if isinstance(given, (tuple, list)) else (given, given)
    if len(sides) != 2 or not all(is_whole(side, 1) for side in sides):
        raise argument_error(
            "input_size", expected="a side or (height, width) in pixels", got=given, remedy="For example 224."
        )
    return sides[0], sides[1]


def _recorded_lattice(out: Path | None, identity: dict[str, Any]) -> Lattice | None:
    """The lattice in a store that is gone on with, when it was measured on the same model: tracing takes seconds."""
    index = None if out is None else resumable_index(out)
    if index is None or any(index["settings"].get(name) != value for name, value in identity.items()):
        return None
    return Geometry.from_json(index["geometry"]).lattice


def _shard_images(layout: Layout, images: int | None) -> int:
    most = max(SHARD_IMAGES, -(-(images or 0) // MAX_SHARDS))
    return max(1, min(SHARD_BYTES // layout.image_bytes, most))
