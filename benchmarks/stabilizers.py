"""Stabilizers of planted dictionaries that are hard to learn or broken: exact, or told to be broken?

    python benchmarks/stabilizers.py                            # D4, D8, D16, D32 and C8, every option, seeds 0 to 4
    python benchmarks/stabilizers.py --groups D8 --options default smooth --seeds 0 1

Each run plants base latents of every kind of stabilizer that the group has (at most 8 kinds), samples orbits with 3
active atoms, trains a tied crosscoder (pose="nms") and analyses it. One option is changed at a time:

- default: white over the group, independent, equally frequent, no noise.
- smooth: the blocks smoothed over angle with a Gaussian of 20 degrees.
- correlated: of each pair of atoms drawn, the second is the first one's partner in the same pose with probability 0.4,
  and its nearest pose with 0.2.
- unequal: Zipf's law over base latents (exponent 1) and over poses (exponent 0.5).
- noise: Gaussian, 0.3 of the signal's root mean square. overlap: 0.3 is the expected cosine of any two atoms; 6 times
  the steps (superposition: 3 times), as the bias at first takes what all atoms share and gives it back slowly.
- superposition: channels so few that there are 1.5 atoms for each number of an orbit (|G|·D); smoothed by 1 degree, so
  that no shape nearly has a larger stabilizer.
- missing blocks, weak blocks: of a quarter of the base latents a third of the blocks is gone, or a quarter as strong.
- missing poses: of a quarter of the base latents a third of the poses never occurs.

Columns, over the seeds together: distinct atoms; share of them matched at a cosine above 0.95, and the least of any
seed; live latents that match an atom of a whole base latent, the share of these whose stabilizer is exactly the atom's,
and how many are called broken, wrongly; live latents that match an atom of a broken one, and the share told. One with
broken blocks is told where `Stabilizer.broken` is set and the stabilizer is that of the whole shape; one with missing
poses where its stabilizer is exact and its dial shows gaps of just as many poses as are missing. Last, seconds of the
processor a run.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.analysis import Atlas
from groupcc.groups import group as make_group
from groupcc.models.forms.tied import translates
from groupcc.zoo.broken import break_symmetry
from groupcc.zoo.planted import PlantedDictionary, planted
from groupcc.zoo.recovery import match

CROWDED = 1.5
"""Atoms for each number of an orbit with superposition."""


@dataclass(frozen=True)
class Setup:
    """How a group's dictionaries are planted and trained."""

    d_in: int
    planted: int
    latents: int
    steps: int
    batch_size: int
    lr: float
    samples: int = 10_000


SETUPS = {
    "D4": Setup(16, 16, 24, 80, 128, 0.02),
    "D8": Setup(24, 16, 24, 80, 128, 0.02),
    "D16": Setup(32, 16, 24, 100, 192, 0.01),
    "D32": Setup(32, 16, 24, 100, 192, 0.01),
    "C8": Setup(16, 16, 24, 80, 128, 0.02),
}


@dataclass(frozen=True)
class Option:
    """What is changed: arguments of `planted`, of `sample`, of `break_symmetry`; times as many steps."""

    planted: dict[str, float]
    sample: dict[str, float]
    broken: dict[str, float]
    superposition: bool = False
    longer: int = 1


OPTIONS = {
    "default": Option({}, {}, {}),
    "smooth": Option({"smoothness": 20.0}, {}, {}),
    "correlated": Option({}, {"partners": 0.4, "neighbours": 0.2}, {}),
    "unequal": Option({}, {"zipf": 1.0, "pose_zipf": 0.5}, {}),
    "noise": Option({}, {"noise": 0.3}, {}),
    "overlap": Option({"overlap": 0.3}, {}, {}, longer=6),
    "superposition": Option({"smoothness": 1.0}, {}, {}, superposition=True, longer=3),
    "missing blocks": Option({}, {}, {"blocks": 1 / 3}),
    "weak blocks": Option({}, {}, {"blocks": 1 / 3, "strength": 0.25}),
    "missing poses": Option({}, {}, {"poses": 1 / 3}),
}


@dataclass(frozen=True)
class Score:
    """Counts of one run."""

    atoms: int
    matched: int
    whole: int
    exact: int
    called_broken: int
    broken: int
    told: int
    seconds: float


def plant(group: str, setup: Setup, option: Option, seed: int) -> PlantedDictionary:
    """The dictionary, broken where the option says so; deterministic in the seed."""
    options: dict[str, Any] = option.planted
    d_in = setup.d_in
    if option.superposition:
        atoms = len(planted(group, d_in, setup.planted, seed=seed).atoms)
        d_in = max(1, round(atoms / (CROWDED * make_group(group).order)))
    truth = planted(group, d_in, setup.planted, seed=seed, **options)
    if not option.broken:
        return truth
    fewest = 2 if "blocks" in option.broken else 3
    counts = torch.bincount(truth.atom_base).tolist()
    sizes = [s.order for s in truth.stabilizers] if "blocks" in option.broken else counts
    able = [f for f, size in enumerate(sizes) if size >= fewest]
    chosen = random.Random(seed).sample(able, setup.planted // 4)
    breaks: dict[str, Any] = option.broken
    return break_symmetry(truth, sorted(chosen), seed=seed, **breaks)


def run(group: str, setup: Setup, option: Option, seed: int) -> Score:
    """Plants, samples, trains, analyses and scores; deterministic in the seed and the thread count."""
    started = time.process_time()
    truth = plant(group, setup, option, seed)
    sampling: dict[str, Any] = option.sample
    acts, _ = truth.sample(setup.samples, seed=seed + 1000, **sampling)
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(
            group=group,
            d_in=truth.base.shape[2],
            n_latents=setup.latents,
            k=3,
            encoder="orbit",
            tied=True,
            pose="nms",
            pose_distance=0.0,  # smooth or white, `pose_similarity` says which poses are too near
            dead_after=4 * setup.batch_size,
        ),
        seed=seed,
    )
    settings = TrainConfig(
        augment=False,
        steps=setup.steps * option.longer,
        batch_size=setup.batch_size,
        lr=setup.lr,
        resample_every=setup.steps * option.longer // 8,
        seed=seed,
        held_out=0.02,
        progress=False,
    )
    train(crosscoder, acts, settings)
    atlas = analyze(crosscoder, acts if "poses" in option.broken else None)
    return score(truth, crosscoder, atlas, time.process_time() - started)


def score(truth: PlantedDictionary, crosscoder: GroupCrosscoder, atlas: Atlas, seconds: float) -> Score:
    """What of the truth the atlas says."""
    atoms = match(translates(crosscoder.W_dec.detach(), truth.group), truth)
    latents = match(crosscoder.W_dec, truth)
    whole = exact = called_broken = broken = told = 0
    for latent in latents.recovered_latents():
        if atlas.dead[latent]:
            continue
        atom = int(latents.latent_atom[latent])
        how = truth.broken.get(int(truth.atom_base[atom]))
        stabilizer = atlas.stabilizers[latent]
        same = bool((stabilizer.mask == truth.atom_stabilizers[atom]).all())
        if how is None:
            whole += 1
            exact += same
            called_broken += stabilizer.broken
        else:
            broken += 1
            told += same and (stabilizer.broken if how.blocks else _gap_poses(atlas, latent) == len(how.poses))
    matched = int((atoms.atom_cosine > 0.95).sum())
    return Score(len(truth.atoms), matched, whole, exact, called_broken, broken, told, seconds)


def _gap_poses(atlas: Atlas, latent: int) -> int:
    """Poses that lie in a gap of a latent's dial."""
    dial = atlas.dial(latent)
    return 0 if dial is None else sum(int(ring.gaps.sum()) for ring in dial.rings)


HEAD = (
    "group",
    "option",
    "atoms",
    "recovered",
    "least",
    "whole",
    "exact",
    "called broken",
    "broken",
    "told",
    "seconds",
)


def row(group: str, option: str, scores: Sequence[Score]) -> str:
    """A row of the table, in Markdown."""

    def total(name: str) -> int:
        return sum(getattr(score, name) for score in scores)

    def share(part: str, of: str) -> str:
        return f"{total(part) / total(of):.1%}" if total(of) else ""

    least = min(score.matched / score.atoms for score in scores)
    cells = (
        group, option, total("atoms"), share("matched", "atoms"), f"{least:.1%}", total("whole"),
        share("exact", "whole"), total("called_broken"), total("broken") or "",
        share("told", "broken"),
        f"{sum(score.seconds for score in scores) / len(scores):.1f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="+", choices=list(SETUPS), default=list(SETUPS))
    parser.add_argument("--options", nargs="+", choices=list(OPTIONS), default=list(OPTIONS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, help="in place of each group's own")
    parser.add_argument("--samples", type=int, help="in place of each group's own")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    print("| " + " | ".join(HEAD) + " |")
    print("|---" * len(HEAD) + "|")
    for group in args.groups:
        given = {name: getattr(args, name) for name in ("steps", "samples") if getattr(args, name)}
        setup = replace(SETUPS[group], **given)
        for option in args.options:
            print(row(group, option, [run(group, setup, OPTIONS[option], seed) for seed in args.seeds]), flush=True)


if __name__ == "__main__":
    main()
