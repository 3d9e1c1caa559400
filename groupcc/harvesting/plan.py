"""Everything that a harvest decides before it starts: positions, sizes, and the settings that make its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from groupcc.errors import argument_error, is_whole
from groupcc.harvesting.photographs import Groups, PhotographKeys, photograph_keys
from groupcc.harvesting.shards import DTYPES, ImageShapes
from groupcc.harvesting.sources import Item, Source
from groupcc.harvesting.writer import resumable_index
from groupcc.views import Lattice, LayerView
from groupcc.views.geometry import Geometry, PositionRule, parse_positions

__all__ = ["Choices", "HarvestPlan", "begun_in_turn", "check_choices", "plan_harvest", "recorded_lattice"]

SHARD_BYTES = 64_000_000
SHARD_IMAGES = 64
MAX_SHARDS = 256

SETTINGS = ["model", "fingerprint", "layer", "input_size", "group", "action", "layout", "orbit", "positions", "seed"]
SETTINGS += ["interpolation", "margin", "lattice", "preprocess", "dtype", "images", "max_images", "sample", "groups"]
"""What decides the numbers in a store. If two harvests differ, the error names the first of these."""


@dataclass(frozen=True)
class Choices:
    """The part of `harvest`'s arguments that concerns what is kept, checked."""

    positions: str
    rule: PositionRule
    dtype: str
    seed: int
    max_images: int | None
    shard_images: int | None
    keys: PhotographKeys | None

    def key(self, name: str) -> str | None:
        """Returns the key of an image's photograph; None if each image is a photograph of its own."""
        return None if self.keys is None else self.keys.key(name)


def check_choices(
    positions: str,
    dtype: str | torch.dtype,
    seed: int,
    max_images: int | None,
    shard_images: int | None,
    groups: Groups = None,
) -> Choices:
    """The choices, before any model is looked at; ArgumentError for the first that is wrong."""
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
    rule, keys = parse_positions(positions), photograph_keys(groups)
    return Choices(positions, rule, storage, seed, max_images, shard_images, keys)


@dataclass(frozen=True)
class HarvestPlan:
    """What `harvest` is going to do; `settings` is the part that decides the numbers in the store.

    `images`: how many are expected, None if nobody knows. `shapes`: what is stored for each of them. `order`: the
    indices of the source's items in the order in which they are taken until there are `max_images`; None for as they
    come.
    """

    view: LayerView
    source: Source
    choices: Choices
    shapes: ImageShapes
    images: int | None
    shard_images: int
    settings: dict[str, Any]
    order: Sequence[int] | None

    def items(self, start: int) -> Iterator[Item]:
        """Returns the items in the order in which they are taken, without the first `start`."""
        if self.order is None:
            return self.source.items(start)
        assert self.source.at is not None
        return map(self.source.at, self.order[start:])

    def describe_choice(self) -> str | None:
        """Returns one line on which images are taken; None if all are."""
        most, count = self.choices.max_images, self.source.count
        if self.order is not None:
            return f"{most} of {count} images, a sample that seed {self.choices.seed} chooses"
        if most is None or (count is not None and most >= count):
            return None
        if count is None:
            return f"the first {most} images: how many there are isn't known, so none can be sampled"
        return f"the first {most} of {count} images, as the store was begun by an older groupcc"

    def describe(self) -> str:
        """One line: how many positions are safe, and how many are used."""
        geometry = self.view.geometry
        height, width = geometry.lattice.map_size or (0, 0)
        return (
            f"{len(geometry.candidates)} of {height * width} positions are inside the safe disc "
            f"(radius {geometry.radius:.1f} map pixels); {self.shapes.positions} used in each image "
            f"({self.choices.positions})"
        )


def plan_harvest(view: LayerView, source: Source, choices: Choices, in_turn: bool) -> HarvestPlan:
    """The plan for a view, images and choices; ArgumentError if more positions are wanted than are safe.

    `in_turn`: `max_images` are the first, not a sample.
    """
    geometry = view.geometry
    per_image = choices.rule.per_image(geometry)
    if per_image > len(geometry.candidates):
        raise argument_error(
            "positions",
            expected=f"at most {len(geometry.candidates)} positions, all that are inside the safe disc",
            got=choices.positions,
            remedy='Use "all", or a larger input_size.',
        )
    shapes = ImageShapes(per_image, view.group.order, view.d_in, geometry.canvas_size, choices.dtype)
    most = choices.max_images
    count = source.count if most is None else min(most, source.count or most)
    order = None if in_turn else _sampled(source, choices)
    known = view.record() | {
        "positions": choices.positions,
        "seed": choices.seed,
        "dtype": choices.dtype,
        "images": {"kind": source.kind, "count": source.count, "fingerprint": source.fingerprint},
        "max_images": most,
        "sample": None if order is None else "seeded",
        "groups": None if choices.keys is None else choices.keys.record(),
    }
    return HarvestPlan(
        view=view,
        source=source,
        choices=choices,
        shapes=shapes,
        images=count,
        shard_images=choices.shard_images or _shard_images(shapes, count),
        # As JSON gives it back, so that what is compared with a store's index is of the same types.
        settings=json.loads(json.dumps({name: known[name] for name in SETTINGS if name in known})),
        order=order,
    )


def _sampled(source: Source, choices: Choices) -> list[int] | None:
    """Returns a sample of `max_images` indices of the source, ascending, then all others in random order: one of them
    takes the place of each image that can't be used. The seed decides both. None if there is nothing to choose."""
    most, count = choices.max_images, source.count
    if most is None or count is None or most >= count:
        return None
    order = torch.randperm(count, generator=torch.Generator().manual_seed(choices.seed)).tolist()
    return sorted(order[:most]) + order[most:]


def begun_in_turn(out: Path | None) -> bool:
    """Whether a harvest goes on with a store of a time when `max_images` were the first by path."""
    index = None if out is None else resumable_index(out)
    return index is not None and "sample" not in index["settings"]


def recorded_lattice(out: Path | None, identity: dict[str, Any]) -> Lattice | None:
    """The lattice in the store that a harvest goes on with, if it was measured on the same model and layer."""
    index = None if out is None else resumable_index(out)
    if index is None or any(index["settings"].get(name) != value for name, value in identity.items()):
        return None
    return Geometry.from_json(index["geometry"]).lattice


def _shard_images(shapes: ImageShapes, images: int | None) -> int:
    most = max(SHARD_IMAGES, -(-(images or 0) // MAX_SHARDS))
    return max(1, min(SHARD_BYTES // shapes.image_bytes, most))
