"""Which examples training has seen: split by photograph, and the split found again from a crosscoder's provenance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from groupcc.data.orbits import Orbits
from groupcc.errors import argument_error

__all__ = ["fingerprint", "held_out_examples", "parts_by_image", "split_by_image"]


def split_by_image(orbits: Orbits, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the (training, held-out) example indices, ascending. All examples of a photograph fall on one side.

    At least one photograph is held out where `held_out` > 0, and at least one is left.
    """
    photograph = orbits.photograph_ids
    photographs = photograph.unique()
    if held_out == 0:
        return torch.arange(len(orbits)), torch.arange(0)
    if len(photographs) < 2:
        raise argument_error(
            "held_out",
            expected="0 where all examples come from one photograph",
            got=held_out,
            remedy="Set held_out=0, harvest more images, or harvest with other groups.",
        )
    count = min(max(round(held_out * len(photographs)), 1), len(photographs) - 1)
    order = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(seed))
    is_held_out = torch.isin(photograph, photographs[order[:count]])
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


def parts_by_image(orbits: Orbits, count: int, chosen: torch.Tensor | None = None) -> list[torch.Tensor]:
    """Returns the examples, or those `chosen`, in up to `count` parts. Photographs are dealt out in turn, all examples
    of one to one part. No part is empty."""
    chosen = torch.arange(len(orbits)) if chosen is None else chosen
    _, photograph = orbits.photograph_ids.cpu()[chosen].unique(return_inverse=True)
    return [chosen[photograph % count == part] for part in range(min(count, int(photograph.max()) + 1))]


def fingerprint(orbits: Orbits) -> str:
    """Returns a hex hash of the data's size, the image and the photograph of each example, and 64 examples spread over
    the data."""
    n = len(orbits)
    probes = torch.linspace(0, n - 1, min(n, 64), dtype=torch.float64).long()
    digest = hashlib.sha256(str(n).encode())
    digest.update(orbits.image_ids.numpy().tobytes())
    if not torch.equal(orbits.photograph_ids, orbits.image_ids):
        # Older fingerprints know images alone, and are the same where each image is a photograph of its own.
        digest.update(orbits.photograph_ids.numpy().tobytes())
    digest.update(orbits.take(probes).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def held_out_examples(provenance: Mapping[str, Any], orbits: Orbits) -> torch.Tensor | None:
    """Which of `orbits` the last training held out, int64 ascending, none where it held out none; None where
    `provenance` (`GroupCrosscoder.provenance`) doesn't say, or training had other data.

    The answer follows from the share and the seed that `train` records. Demos of older versions trained on a view of a
    store, and recorded under "split" the store's fingerprint and the images that were held out.
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
