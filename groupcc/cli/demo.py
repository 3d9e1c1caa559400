"""demo: from bundled photographs and a bundled net to a report, on two CPU cores in minutes."""

from __future__ import annotations

from pathlib import Path

from groupcc.cli import stages
from groupcc.groups import group as parse_group
from groupcc.models import CrosscoderConfig
from groupcc.training import TrainConfig
from groupcc.zoo import photographs

__all__ = ["run_demo"]

LAYER = "mixed3b"
INPUT_SIZE = 193
STEPS = 1200


def run_demo(out: Path, *, group: str, steps: int | None, seed: int) -> None:
    """Everything under `out`; run again, it goes on where it stopped.

    The photographs are those that the net was not trained on. There are few, so training uses every orbit's
    translates (`TrainConfig.augment`).
    """
    store = stages.harvest(
        out / "orbits",
        "bundled",
        LAYER,
        photographs("held_out"),
        parse_group(group).name,
        {"input_size": INPUT_SIZE, "seed": seed},
    )
    config = CrosscoderConfig(
        group=store.group.name, d_in=store.d_in, n_latents=256, k=8, encoder="orbit", dead_after=20_000
    )
    settings = TrainConfig(
        steps=STEPS if steps is None else steps,
        batch_size=256,
        lr=3e-3,
        augment=True,
        held_out=0.2,
        seed=seed,
        log_every=20,
        checkpoint_every=200,
    )
    stages.dictionary_to_report(
        out,
        store,
        config,
        settings,
        {},
        title="Symmetries of a small vision net",
        baseline=True,
    )
