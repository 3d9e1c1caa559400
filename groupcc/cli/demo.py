"""demo: from photographs and EfficientNet-Lite0 to a report, on two CPU cores in minutes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from groupcc import zoo
from groupcc.cli import stages
from groupcc.cli.nulls import Subject, null_atlas
from groupcc.groups import group as parse_group
from groupcc.models import CrosscoderConfig
from groupcc.training import TrainConfig
from groupcc.zoo import photographs

__all__ = ["PHOTOGRAPH", "crops", "run_demo"]

MODEL, LAYER = "efficientnet_lite0", "blocks.2.1.bn1"
INPUT_SIZE = 160
POSITIONS = "random:80"
CROPS = 50
"""Two or three of each of the 20 photographs."""
PHOTOGRAPH = "[^,]+"
"""Of the name of a crop: its photograph's name."""
CAUSAL_IMAGES = 8
STEPS = 400
TIED_STEPS = 300  # a fourth of the parameters, each seen by every pose: fewer and larger steps do


def run_demo(
    out: Path, *, group: str, steps: int | None, seed: int, visualize: int = 0, causal: int = 0, nulls: bool = True
) -> None:
    """Everything under `out`; run again, it goes on where it stopped.

    The network has learned ImageNet. It is shown crops of 20 photographs, of which a fifth are held out. `nulls`: the
    same on the network with random weights, so that the page claims only what exceeds it.
    """
    name = parse_group(group).name
    pictures = stages.Pictures(MODEL, None, None, visualize)
    images = zoo.real_crops(CROPS, seed=seed)
    # Crops of a photograph are no images of their own to an error over images.
    whole = [(name, pixels) for name, pixels in images if name.endswith("/0000")][:CAUSAL_IMAGES]
    options = {"input_size": INPUT_SIZE, "seed": seed}
    # Of two elements there is no second transform, the control of the first.
    interventions = stages.Interventions(MODEL, LAYER, whole, options, causal if parse_group(group).order > 2 else 0)
    store = stages.harvest(
        out / "orbits", MODEL, LAYER, images, name, options | {"positions": POSITIONS, "groups": "parent"}
    )
    config = CrosscoderConfig(group=name, d_in=store.d_in, n_latents=96, k=8)
    settings = TrainConfig(
        steps=STEPS if steps is None else steps,
        batch_size=256,
        held_out=0.2,
        seed=seed,
        log_every=20,
    )
    analysis: dict[str, object] = {}
    if nulls:
        subject = Subject(MODEL, None, None, images)
        analysis["nulls"] = null_atlas(out / "nulls" / "random", subject, store, config, settings, {})
    tied = dataclasses.replace(config, n_latents=24, tied=True)
    stages.dictionary_to_report(
        out,
        store,
        config,
        settings,
        analysis,
        title="Symmetries of EfficientNet-Lite0",
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
