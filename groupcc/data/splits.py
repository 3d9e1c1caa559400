"""Which examples training has seen: split by image, and the split found again from a crosscoder's provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from groupcc.data.orbits import Orbits
from groupcc.errors import argument_error

__all__ = ["fingerprint", "held_out_examples", "parts_by_image", "split_by_image", "split_record"]


def split_by_image(orbits: Orbits, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(training, held-out) example indices, ascending; all examples of an image fall on one side.

    At least one image is held out where `held_out` > 0, and at least one is left.
    """
    images = orbits.image_ids.unique()
    if held_out == 0:
        return torch.arange(len(orbits)), torch.arange(0)
    if len(images) < 2:
        raise argument_error(
            "held_out",
            expected="0 where all examples come from one image",
            got=held_out,
            remedy="Set held_out=0, or harvest more images.",
        )
    count = min(max(round(held_out * len(images)), 1), len(images) - 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    is_held_out = torch.isin(orbits.image_ids, images[order[:count]])
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


def parts_by_image(orbits: Orbits, count: int, chosen: torch.Tensor | None = None) -> list[torch.Tensor]:
    """The examples, or those `chosen`, in up to `count` parts: images are dealt out in turn, all examples of one to
    one part. No part is empty."""
    chosen = torch.arange(len(orbits)) if chosen is None else chosen
    _, image = orbits.image_ids.cpu()[chosen].unique(return_inverse=True)
    return [chosen[image % count == part] for part in range(min(count, int(image.max()) + 1))]


def fingerprint(orbits: Orbits) -> str:
    """Hex hash of the data's size, its image of each example, and 64 examples spread over it."""
    n = len(orbits)
    probes = torch.linspace(0, n - 1, min(n, 64), dtype=torch.float64).long()
    digest = hashlib.sha256(str(n).encode())
    digest.update(orbits.image_ids.numpy().tobytes())
    digest.update(orbits.take(probes).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def split_record(orbits: Orbits, view: Orbits, held_out: float, seed: int) -> dict[str, Any]:
    """What provenance says under "split" where training reads a `view` of `orbits`: the same examples, their images
    grouped otherwise. The fingerprint of `orbits`, and those of their images that the view's split holds out whole."""
    seen, unseen = (set(orbits.image_ids[part].tolist()) for part in split_by_image(view, held_out, seed))
    return {"data": fingerprint(orbits), "held_out_images": sorted(unseen - seen)}


def held_out_examples(provenance: Mapping[str, Any], orbits: Orbits) -> torch.Tensor | None:
    """Which of `orbits` the last training held out, int64 ascending, none where it held out none; None where
    `provenance` (`GroupCrosscoder.provenance`) doesn't say, or training had other data.

    From the share and the seed that `train` records, or from a `split_record`.
    """
    data = fingerprint(orbits)
    split, settings = provenance.get("split", {}), provenance.get("settings", {})
    if split.get("data") == data:
        return (
            torch.isin(orbits.image_ids, torch.tensor(split["held_out_images"], dtype=torch.int64)).nonzero().flatten()
        )
    if settings.get("data") == data:
        return split_by_image(orbits, settings["train"]["held_out"], settings["train"]["seed"])[1]
    return None
