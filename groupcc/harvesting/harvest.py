"""harvest: a model, a layer and images → orbits. The loop that runs the model on every transform."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from groupcc import _defaults
from groupcc.errors import ArgumentError, DataError, argument_error, check_options, is_whole
from groupcc.groups import Action, Group
from groupcc.harvesting.canvas import load_canvas
from groupcc.harvesting.decode import DEFAULT_MAX_PIXELS, UnusableImageError
from groupcc.harvesting.photographs import Groups
from groupcc.harvesting.plan import HarvestPlan, begun_in_turn, check_choices, plan_harvest, recorded_lattice
from groupcc.harvesting.sources import Item, open_source
from groupcc.harvesting.space import check_space, describe_size
from groupcc.harvesting.store import OrbitStore
from groupcc.harvesting.writer import Harvested, StoreWriter
from groupcc.views import LayerView, ViewOptions
from groupcc.views.given import view_for
from groupcc.views.options import VIEW_DEFAULTS, Orbit

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["HARVEST_DEFAULTS", "HarvestOptions", "harvest"]


class HarvestOptions(ViewOptions, total=False):
    """Options of `harvest` beside those of [`ViewOptions`][groupcc.views.ViewOptions]. Each may be left out.

    - `orbit`: "input" (the default, the paper's) or "map".
    - `groups`: which images show one photograph, so that training and evaluation share none. "parent": those in one
      folder. A regular expression: those with one key, the expression's first group (or the whole match) in the
      image's name. The path of a CSV file with the columns image and group: as the file says. By default each image
      is a photograph of its own.
    - `max_skipped`: damaged or unusable images are skipped by name; more than this many is an error. By default a
      tenth of the images, at least 10.
    - `max_pixels`: larger images are skipped unread.
    - `shard_images`: images in a file, by default up to 64, and 64 MB.
    """

    orbit: Orbit | None
    groups: Groups
    max_skipped: int | None
    max_pixels: int
    shard_images: int | None


HARVEST_DEFAULTS: HarvestOptions = {
    **VIEW_DEFAULTS,
    "orbit": None,
    "groups": None,
    "max_skipped": None,
    "max_pixels": DEFAULT_MAX_PIXELS,
    "shard_images": None,
}


def harvest(
    model: nn.Module | str | LayerView,
    layer: str | None = None,
    images: Any = None,
    group: str | Group | Action | None = None,
    *,
    positions: str = "all",
    out: str | os.PathLike[str] | None = None,
    dtype: str | torch.dtype = "float16",
    seed: int = 0,
    forward_batch: int = _defaults.FORWARD_BATCH,
    max_images: int | None = None,
    progress: bool = True,
    **options: Unpack[HarvestOptions],
) -> OrbitStore:
    """Runs a model on every transform of images and collects one layer's orbits, aligned to the original image.

    For the input orbit (`orbit="input"`, Gorton 2024) a_g(p) = A_g(g·p) with A_g = layer(T_g x): |G| forward passes an
    image give an orbit [G, D] at each of P positions. For the activation-map orbit (`"map"`) a_g(p) = A(g·p) on the
    one map A = layer(x): how far the layer is from exact equivariance, without further passes.

    Geometry: images turn about the pixel under the layer's map pixel nearest the input's middle, which is found by
    measuring stride, offset and receptive field (`measure_lattice`; `lattice` gives them by hand). Photographs are
    cropped to the centred square and resized (small ones enlarged) to a canvas that covers the input at every angle,
    so no fill enters; positions are those whose receptive field stays inside the input under every transform
    (`plan_geometry` has the formula; `margin` is the half-width in input pixels if half the receptive field is too
    much).

    Example: `harvest("googlenet", "inception3b", "photos/", "D32", weights="DEFAULT", positions="random:16")`.

    Args:
        model: an `nn.Module` (used where it is, in its own dtype); or a name for `resolve_model`, with `weights`; or
            a `LayerView`, which has layer, group, orbit and the options of `ViewOptions` itself, so that these are
            left out: `harvest(view, images=...)`.
        layer: dotted name of a module that gives maps [B, C, H, W].
        images: a folder (searched below too, sorted by path) or file; a tensor [N, C, H, W]; an iterable of Pillow
            images, arrays HW or HWC, paths, tensors [C, H, W], or (name, image) pairs. Photographs become RGB in
            [0, 1]. Tensors are used as they are, without resizing, uint8 divided by 255; if they don't cover the
            turned input, the positions are fewer.
        group: "C<n>", "D<n>" or a Group, which turns images; or any other `Action`. "D32" by default.
        positions: "all" in the safe disc, "random:<n>" of them in each image (by seed and image), or "centre".
        out: directory of the store, gone on with if it holds an unfinished one; None keeps it in memory.
        dtype: "float16", "bfloat16" or "float32", for storage.
        forward_batch: transformed images in one forward pass. Another batch size may change results in the last bit.
        max_images: take so many, a sample that the seed chooses; the first ones of an iterable without a length. In
            place of an image that can't be used another is drawn.
        progress: sizes, rate and time left on stderr.
        options: [`HarvestOptions`][groupcc.harvesting.HarvestOptions].

    Returns:
        The finished store. Its examples depend on the arguments and the images alone: a harvest that was killed and
        run again gives the same bytes (on the same machine).

    Raises:
        ArgumentError: an argument is wrong or unknown, no position is safe, or `out` was harvested with other settings.
        DataError: too many skipped images; NaN or infinity from the model; a value too large for `dtype`, or values
            that lose more than a thousandth of their variance in `dtype`; too little room; a damaged store; another
            process writing to it.
    """
    check_options(harvest, options, HARVEST_DEFAULTS)
    given: HarvestOptions = {**HARVEST_DEFAULTS, **options}
    for name, value, least in (("forward_batch", forward_batch, 1), ("max_skipped", given["max_skipped"] or 0, 0)):
        if not is_whole(value, least):
            raise argument_error(
                name, expected=f"a whole number of at least {least}", got=value, remedy="Leave it out for the default."
            )
    choices = check_choices(positions, dtype, seed, max_images, given["shard_images"], given["groups"])
    folder = None if out is None else Path(out)
    source = open_source(images, given["max_pixels"])
    for name in source.names:
        choices.key(name)  # an image without a key is refused before the model is looked at
    view_options = cast(ViewOptions, {name: value for name, value in options.items() if name in VIEW_DEFAULTS})
    known_lattice = partial(recorded_lattice, folder)
    view = view_for(model, layer, group, source.image_kind, given["orbit"], view_options, known_lattice)
    plan = plan_harvest(view, source, choices, begun_in_turn(folder))
    say = _say if progress else _say_nothing
    say(view.describe())
    say(plan.describe())
    if choice := plan.describe_choice():
        say(choice)
    writer = StoreWriter(
        folder,
        settings=plan.settings,
        geometry=view.geometry.to_json(),
        shapes=plan.shapes,
        shard_images=plan.shard_images,
    )
    with writer.locked():
        if writer.complete:
            say(f"{folder} is complete: {writer.images} images, nothing to do")
            return writer.finish(writer.cursor)
        say(describe_size(plan.shapes, plan.images))
        left = None if plan.images is None else max(plan.images - writer.images, 0)
        check_space(plan.shapes, left, folder)
        if writer.images:
            say(f"going on after {writer.images} images")
        cursor = _run(plan, writer, forward_batch, given["max_skipped"], progress)
        if not writer.images:
            raise DataError(f"no image could be used: {_list_skipped(writer.skipped)}")
        if writer.skipped:
            say(f"skipped {len(writer.skipped)} images: {_list_skipped(writer.skipped)}")
        return writer.finish(cursor)


def _run(plan: HarvestPlan, writer: StoreWriter, forward_batch: int, max_skipped: int | None, progress: bool) -> int:
    """Harvests what isn't in the store yet. Returns how many items of the source were used up."""
    view, cursor = plan.view, writer.cursor
    batch_images = max(1, forward_batch // len(view.elements))
    batch: list[tuple[Item, torch.Tensor, npt.NDArray[np.uint8]]] = []
    bar = tqdm(
        total=plan.images,
        initial=writer.images,
        unit="image",
        desc=f"harvest {view.layer}",
        disable=not progress,
        dynamic_ncols=True,
    )
    limit = math.inf if plan.choices.max_images is None else plan.choices.max_images
    in_shard = 0
    with bar:
        for item in _remaining(plan, writer):
            if writer.images + len(batch) >= limit:
                break
            try:
                values, canvas = load_canvas(view, item)
            except UnusableImageError as error:
                writer.skip(item.index, item.name, str(error))
                bar.set_postfix(skipped=len(writer.skipped))
                _check_skipped(plan, writer, cursor + 1, max_skipped)
            else:
                batch.append((item, values, canvas))
                in_shard += 1
            cursor += 1
            # Batches never cross a shard's end: after a restart they fall as they did before.
            if len(batch) == batch_images or in_shard == writer.shard_images:
                _harvest_batch(plan, writer, batch, forward_batch, bar)
            if in_shard == writer.shard_images:
                writer.finish_shard(cursor)
                in_shard = 0
        _harvest_batch(plan, writer, batch, forward_batch, bar)
    return cursor


def _harvest_batch(
    plan: HarvestPlan,
    writer: StoreWriter,
    batch: list[tuple[Item, torch.Tensor, npt.NDArray[np.uint8]]],
    forward_batch: int,
    bar: Any,
) -> None:
    if not batch:
        return
    view, choices = plan.view, plan.choices
    positions = [choices.rule.choose(view.geometry, choices.seed, item.index) for item, _, _ in batch]
    canvases_BCHW = torch.stack([values for _, values, _ in batch])
    names = [item.name for item, _, _ in batch]
    orbits_BPGD = view.orbits(canvases_BCHW, positions, forward_batch=forward_batch, names=names)
    for (item, _, canvas), acts, places in zip(batch, orbits_BPGD, positions, strict=True):
        writer.add(Harvested(item.index, item.name, choices.key(item.name), acts, canvas, places))
    bar.update(len(batch))
    batch.clear()


def _remaining(plan: HarvestPlan, writer: StoreWriter) -> Iterator[Item]:
    """The items after the store's cursor.

    If the source has a fingerprint, the writer has compared it. If it has none, the items before the cursor are gone
    through, and each must have the name that the store recorded.
    """
    if plan.source.fingerprint is not None:
        yield from plan.items(writer.cursor)
        return
    used, cursor = writer.used(), writer.cursor
    for place, item in enumerate(plan.items(0)):
        if place >= cursor:
            yield item
            continue
        name = used[item.index]
        if name != item.name:
            raise ArgumentError(
                f"images: image {item.index} was {name!r} when {writer.folder} was begun and is {item.name!r} now. "
                "Give the same images in the same order, or choose another directory."
            )


def _check_skipped(plan: HarvestPlan, writer: StoreWriter, seen: int, max_skipped: int | None) -> None:
    if max_skipped is None:
        max_skipped = max(10, math.ceil(0.1 * (plan.images or seen)))
    if len(writer.skipped) > max_skipped:
        raise DataError(
            f"{len(writer.skipped)} of {seen} images can't be used, more than max_skipped={max_skipped}: "
            f"{_list_skipped(writer.skipped)}"
        )


def _list_skipped(skipped: list[dict[str, Any]]) -> str:
    shown = "; ".join(f"{entry['name']} ({entry['reason']})" for entry in skipped[:5])
    return shown + (f"; and {len(skipped) - 5} more" if len(skipped) > 5 else "")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _say_nothing(message: str) -> None:
    pass
