"""The null: the whole pipeline once more, on the network with random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import groupcc
from groupcc.analysis import Atlas
from groupcc.cli import stages
from groupcc.harvesting import OrbitStore
from groupcc.harvesting.again import view_again
from groupcc.models import CrosscoderConfig
from groupcc.training import TrainConfig

__all__ = ["Subject", "null_atlas"]


@dataclasses.dataclass(frozen=True)
class Subject:
    """The network that was harvested, by name, and its images."""

    model: str
    weights: str | None
    device: str | None
    images: Any


def null_atlas(
    out: Path,
    subject: Subject,
    store: OrbitStore,
    config: CrosscoderConfig,
    settings: TrainConfig,
    analysis: dict[str, Any],
) -> Atlas:
    """Returns the atlas of the network with random weights, in `out`: harvested, trained and analysed as `store` is.

    Each stage goes on where it stopped, so a second run pays nothing.
    """
    given = store.index["settings"]
    options = {"positions": given["positions"], "dtype": store.dtype, "seed": given["seed"]}
    options |= {"groups": given.get("groups"), "max_images": given.get("max_images")}
    with stages.stage("null: harvest the network with random weights"):
        view = view_again(store, subject.model, subject.weights, device=subject.device)
        view = groupcc.random_view(view, subject.images, seed=settings.seed)
        null = groupcc.harvest(view, images=subject.images, out=out / "orbits", **options)
    crosscoder = stages.train_crosscoder(out / "crosscoder", null, config, settings)
    return stages.analyze(out / "atlas", crosscoder, null, analysis)
