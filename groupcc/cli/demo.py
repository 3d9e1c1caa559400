"""demo: from bundled photographs and a bundled net to a report, on two CPU cores in minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groupcc.cli import stages
from groupcc.groups import group as parse_group
from groupcc.models import CrosscoderConfig
from groupcc.training import TrainConfig
from groupcc.zoo import photographs

__all__ = ["PHOTOGRAPH", "crops", "run_demo"]

LAYER = "mixed3b"
INPUT_SIZE = 161
PHOTOGRAPH = "[^,]+"
"""Of the name of a crop: its photograph's name."""
STEPS = 3500
TIED_STEPS = 1500  # a fourth of the parameters, each seen by every pose: fewer and larger steps do


def run_demo(out: Path, *, group: str, steps: int | None, seed: int, visualize: int = 0, causal: int = 0) -> None:
    """Everything under `out`; run again, it goes on where it stopped.

    The photographs are those that the net was not trained on. There are five, so each is used whole and in quarters,
    and training uses every orbit's translates (`TrainConfig.augment`). One photograph, with its quarters, is held out.
    """
    pictures = stages.Pictures("bundled", None, None, visualize)
    images = list(crops())
    # Quarters of a photograph are no images of their own to an error over images.
    whole = [(name, pixels) for name, pixels in images if "," not in name]
    options = {"input_size": INPUT_SIZE, "seed": seed}
    # Of two elements there is no second transform, the control of the first.
    interventions = stages.Interventions(
        "bundled", LAYER, whole, options, causal if parse_group(group).order > 2 else 0
    )
    store = stages.harvest(
        out / "orbits",
        "bundled",
        LAYER,
        images,
        parse_group(group).name,
        options | {"groups": PHOTOGRAPH},
    )
    config = CrosscoderConfig(
        group=store.group.name, d_in=store.d_in, n_latents=256, k=8, encoder="orbit", dead_after=4_000
    )
    tied = dataclasses.replace(config, n_latents=64, tied=True)
    settings = TrainConfig(
        steps=STEPS if steps is None else steps,
        batch_size=256,
        lr=1e-3,
        augment=True,
        init_W_dec="examples",
        held_out=0.2,
        seed=seed,
        log_every=20,
        checkpoint_every=500,
    )
    stages.dictionary_to_report(
        out,
        store,
        config,
        settings,
        {"scaling": True},
        title="Symmetries of a small vision net",
        baseline=True,
        pictures=pictures,
        interventions=interventions,
        tied=(tied, dataclasses.replace(settings, steps=min(settings.steps, TIED_STEPS), lr=3e-3)),
    )


def crops(split: str = "held_out") -> Iterator[tuple[str, np.ndarray]]:
    """Each photograph of a split as its centred square, then the quarters of that square, with names."""
    for name, pixels in photographs(split):
        side = min(pixels.shape[:2]) // 2 * 2
        top, left = ((length - side) // 2 for length in pixels.shape[:2])
        square = pixels[top : top + side, left : left + side]
        yield name, square
        half = side // 2
        for row, vertical in enumerate(("top", "bottom")):
            for column, horizontal in enumerate(("left", "right")):
                quarter = square[row * half : (row + 1) * half, column * half : (column + 1) * half]
                yield f"{name}, {vertical} {horizontal}", quarter
