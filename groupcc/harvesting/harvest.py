"""harvest: a model, a layer and images → orbits. The loop that runs the model on every transform."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from groupcc.errors import ArgumentError, DataError, argument_error, is_whole
from groupcc.groups import Group, as_action
from groupcc.harvesting.decode import DEFAULT_MAX_PIXELS, UnusableImageError, square
from groupcc.harvesting.plan import HarvestPlan, Orbit, plan_harvest
from groupcc.harvesting.sources import Item
from groupcc.harvesting.space import check_space, describe_size
from groupcc.harvesting.store import OrbitStore
from groupcc.harvesting.writer import StoreWriter
from groupcc.ops import orbit_gather
from groupcc.views.geometry import Margin, sampling_points
from groupcc.views.lattice import Lattice
from groupcc.views.layers import LayerReader, evaluation_mode, parameter_kind
from groupcc.views.preprocess import PreprocessLike

__all__ = ["harvest", "load_canvas"]


def harvest(
    model: nn.Module | str,
    layer: str,
    images: Any,
    group: str | Group = "D32",
    *,
    positions: str = "all",
    out: str | os.PathLike[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    orbit: Orbit = "input",
    dtype: str | torch.dtype = "float16",
    input_size: int | tuple[int, int] | None = None,
    preprocess: PreprocessLike = None,
    seed: int = 0,
    forward_batch: int = 16,
    interpolation: str = "bspline",
    lattice: Lattice | None = None,
    margin: Margin = "receptive_field",
    max_skipped: int | None = None,
    max_images: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    shard_images: int | None = None,
    progress: bool = True,
) -> OrbitStore:
    """Runs a model on every transform of images and collects one layer's orbits, aligned to the original image.

    For the input orbit (`orbit="input"`, Gorton 2024) a_g(p) = A_g(g·p) with A_g = layer(T_g x): |G| forward passes an
    image give an orbit [G, D] at each of P positions. For the activation-map orbit (`"map"`) a_g(p) = A(g·p) on the
    one map A = layer(x): how far the layer is from exact equivariance, without further passes.

    Geometry: images turn about the pixel under the layer's map pixel nearest the input's middle, which is found by
    measuring stride, offset and receptive field (`measure_lattice`; `lattice` gives them by hand). Photographs are
    cropped to the centred square and resized (small ones enlarged) to a canvas that covers the input at every angle,
    so no fill enters; positions are those whose receptive field stays inside the input under every transform
    (`plan_geometry` has the formula; `margin` the half-width in input pixels if half the receptive field is too
    much). Maps are sampled by the quadratic B-spline, which smooths the same at every fraction of a pixel, so all
    blocks are resampled alike (`interpolation="bilinear"` doesn't).

    Args:
        model: an `nn.Module` (used where it is, in its own dtype), or a name for `resolve_model`, with `weights`.
        layer: dotted name of a module that gives maps [B, C, H, W].
        device: where the model runs; it is moved there. By default it stays where it is (named models: the CPU).
        images: a folder (searched below too, sorted by path) or file; a tensor [N, C, H, W]; an iterable of Pillow
            images, arrays HW or HWC, paths, tensors [C, H, W], or (name, image) pairs. Photographs become RGB in
            [0, 1]. Tensors are used as they are, without resizing, uint8 divided by 255; if they don't cover the
            turned input, the positions are fewer.
        group: "C<n>", "D<n>" or a Group.
        positions: "all" in the safe disc, "random:<n>" of them in each image (by seed and image), or "centre".
        out: directory of the store, gone on with if it holds an unfinished one; None keeps it in memory.
        dtype: "float16", "bfloat16" or "float32", for storage.
        input_size: what the model sees, side or (height, width); by default the model's own, the tensors', or 224.
        preprocess: (mean, std) or a callable on [B, C, H, W], after the transform; by default that of the named
            model's weights, for float tensors none.
        forward_batch: transformed images in one forward pass. Another batch size may change results in the last bit.
        max_skipped: damaged or unusable images are skipped by name; more than this many is an error. By default a
            tenth of the images, at least 10.
        max_images: stop after so many; max_pixels: larger images are skipped unread; shard_images: images in a file
            (by default up to 64, and 64 MB).
        progress: sizes, rate and time left on stderr.

    Returns:
        The finished store. Its examples depend on the arguments and the images alone: a harvest that was killed and
        run again gives the same bytes (on the same machine).

    Raises:
        ArgumentError: an argument is wrong, no position is safe, or `out` was harvested with other settings.
        DataError: too many skipped images; NaN or infinity from the model; a value too large for `dtype`; too
            little room; a damaged store; another process writing to it.
    """
    say = _say if progress else _say_nothing
    for name, value, least in (("forward_batch", forward_batch, 1), ("max_skipped", max_skipped or 0, 0)):
        if not is_whole(value, least):
            raise argument_error(
                name, expected=f"a whole number of at least {least}", got=value, remedy="Leave it out for the default."
            )
    folder = None if out is None else Path(out)
    plan = plan_harvest(
        model,
        layer,
        images,
        group,
        positions=positions,
        out=folder,
        weights=weights,
        device=device,
        orbit=orbit,
        dtype=dtype,
        input_size=input_size,
        preprocess=preprocess,
        seed=seed,
        interpolation=interpolation,
        lattice=lattice,
        margin=margin,
        max_images=max_images,
        max_pixels=max_pixels,
        shard_images=shard_images,
        say=say,
    )
    writer = StoreWriter(
        folder,
        settings=plan.settings,
        geometry=plan.geometry.to_json(),
        layout=plan.layout,
        shard_images=plan.shard_images,
    )
    with writer.locked():
        if writer.complete:
            say(f"{folder} is complete: {writer.images} images, nothing to do")
            return writer.finish(writer.cursor)
        say(describe_size(plan.layout, plan.images))
        left = None if plan.images is None else max(plan.images - writer.images, 0)
        check_space(plan.layout, left, folder)
        if writer.images:
            say(f"going on after {writer.images} images")
        cursor = _run(plan, writer, forward_batch, max_skipped, progress)
        if not writer.images:
            raise DataError(f"no image could be used: {_list_skipped(writer.skipped)}")
        if writer.skipped:
            say(f"skipped {len(writer.skipped)} images: {_list_skipped(writer.skipped)}")
        return writer.finish(cursor)


def _run(plan: HarvestPlan, writer: StoreWriter, forward_batch: int, max_skipped: int | None, progress: bool) -> int:
    """Harvests what isn't in the store yet; the number of items of the source that were used up."""
    cursor = writer.cursor
    passes = plan.group.order if plan.orbit == "input" else 1
    batch_images = max(1, forward_batch // passes)
    batch: list[tuple[Item, torch.Tensor, npt.NDArray[np.uint8]]] = []
    bar = tqdm(
        total=plan.images,
        initial=writer.images,
        unit="image",
        desc=f"harvest {plan.layer}",
        disable=not progress,
        dynamic_ncols=True,
    )
    runner = _Runner(plan, forward_batch)
    limit = math.inf if plan.settings["max_images"] is None else plan.settings["max_images"]
    in_shard = 0
    with bar, evaluation_mode(plan.model):
        for item in _remaining(plan, writer):
            if writer.images + len(batch) >= limit:
                break
            try:
                values, canvas = load_canvas(plan, item)
            except UnusableImageError as error:
                writer.skip(item.index, item.name, str(error))
                bar.set_postfix(skipped=len(writer.skipped))
                _check_skipped(plan, writer, item.index + 1, max_skipped)
            else:
                batch.append((item, values, canvas))
                in_shard += 1
            cursor = item.index + 1
            # Batches never cross a shard's end: after a restart they fall as they did before.
            if len(batch) == batch_images or in_shard == writer.shard_images:
                _harvest_batch(plan, runner, writer, batch, bar)
            if in_shard == writer.shard_images:
                writer.finish_shard(cursor)
                in_shard = 0
        _harvest_batch(plan, runner, writer, batch, bar)
    return cursor


def _harvest_batch(
    plan: HarvestPlan,
    runner: _Runner,
    writer: StoreWriter,
    batch: list[tuple[Item, torch.Tensor, npt.NDArray[np.uint8]]],
    bar: Any,
) -> None:
    if not batch:
        return
    items = [item for item, _, _ in batch]
    positions = [plan.rule.choose(plan.geometry, plan.seed, item.index) for item in items]
    orbits_BPGD = runner(torch.stack([values for _, values, _ in batch]), positions, [item.name for item in items])
    for (item, _, canvas), acts, places in zip(batch, orbits_BPGD, positions, strict=True):
        writer.add(item.index, item.name, acts, canvas, places)
    bar.update(len(batch))
    batch.clear()


class _Runner:
    """Canvases [B, C, h, w] and positions → orbits [B, P, G, D], a few elements of the group at a time."""

    def __init__(self, plan: HarvestPlan, forward_batch: int) -> None:
        self.plan = plan
        self.forward_batch = forward_batch
        self.action = as_action(plan.group)
        self.reader = LayerReader(plan.model, plan.layer)
        self.dtype, self.device = parameter_kind(plan.model)

    @torch.no_grad()
    def __call__(
        self, canvases_BCHW: torch.Tensor, positions: Sequence[npt.NDArray[np.int64]], names: Sequence[str]
    ) -> torch.Tensor:
        plan, layout = self.plan, self.plan.layout
        canvases = canvases_BCHW.to(self.device)
        B = len(canvases)
        points = [sampling_points(plan.geometry, self.action, places) for places in positions]
        orbits_BPGD = torch.empty(B, layout.positions, layout.order, layout.d_in)
        if plan.orbit == "map":
            maps = self.maps(canvases, [plan.group.identity], names)
            for b in range(B):
                orbits_BPGD[b] = orbit_gather(maps[b : b + 1], points[b], plan.interpolation).cpu()
            return orbits_BPGD
        step = max(1, self.forward_batch // B)
        for first in range(0, layout.order, step):
            chosen = slice(first, min(first + step, layout.order))
            maps = self.maps(canvases, list(range(chosen.start, chosen.stop)), names)
            for b in range(B):
                block = orbit_gather(maps[b : b + 1], points[b][chosen], plan.interpolation)
                orbits_BPGD[b, :, chosen] = block.cpu()
        return orbits_BPGD

    def maps(self, canvases: torch.Tensor, elements: list[int], names: Sequence[str]) -> torch.Tensor:
        """layer(T_g x), [B, S, H, W, D] in at least float32."""
        geometry = self.plan.geometry
        turned = self.action.transform(canvases, elements, geometry.frame)
        output = self.reader(self.plan.preprocess(turned.flatten(0, 1)).to(self.dtype))
        maps = output.to(torch.promote_types(output.dtype, torch.float32)).permute(0, 2, 3, 1)
        finite = maps.flatten(1).isfinite().all(1)
        if not finite.all():
            bad = int((~finite).nonzero()[0])
            element = self.plan.group.element_names[elements[bad % len(elements)]]
            raise DataError(
                f"{self.plan.layer} gives NaN or infinity for image {names[bad // len(elements)]!r} under element "
                f"{element}. Check the model's weights, or its dtype ({self.dtype})."
            )
        assert maps.shape[1:3] == geometry.lattice.map_size
        return maps.reshape(len(canvases), len(elements), *maps.shape[1:])


def load_canvas(plan: HarvestPlan, item: Item) -> tuple[torch.Tensor, npt.NDArray[np.uint8]]:
    """What is transformed, float [C, h, w], and its picture for the store, uint8 [h, w, 3]."""
    loaded = item.load()
    if isinstance(loaded, torch.Tensor):
        return loaded, _picture(loaded)
    canvas = square(loaded, plan.geometry.canvas_size[0])
    return torch.from_numpy(canvas.copy()).permute(2, 0, 1).float() / 255, canvas


def _picture(values: torch.Tensor) -> npt.NDArray[np.uint8]:
    """A tensor as a picture: channels 1 or 3 as they are, others averaged; values outside [0, 1] are stretched."""
    if values.shape[0] != 3:
        values = values.mean(0, keepdim=True).expand(3, -1, -1)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    return (values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()


def _remaining(plan: HarvestPlan, writer: StoreWriter) -> Iterator[Item]:
    """The items after the store's cursor. Those before it must have the names they had then, where that can be told
    only by going through them."""
    if plan.source.fingerprint is not None:
        yield from plan.source.items(writer.cursor)
        return
    used = iter(writer.used())
    for item in plan.source.items(0):
        if item.index >= writer.cursor:
            yield item
            continue
        _, name = next(used)
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
            f"{len(writer.skipped)} of the first {seen} images can't be used, more than max_skipped={max_skipped}: "
            f"{_list_skipped(writer.skipped)}"
        )


def _list_skipped(skipped: list[dict[str, Any]]) -> str:
    shown = "; ".join(f"{entry['name']} ({entry['reason']})" for entry in skipped[:5])
    return shown + (f"; and {len(skipped) - 5} more" if len(skipped) > 5 else "")


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _say_nothing(message: str) -> None:
    pass
