"""How much of a planted dictionary an "orbit" crosscoder recovers, and whether each stabilizer is exact.

    python benchmarks/planted_recovery.py                 # D8, 16 latents of 8 stabilizer kinds, seeds 0 to 4
    python benchmarks/planted_recovery.py --pose nms      # tied
    python benchmarks/planted_recovery.py --compare       # seconds that each needs
    python benchmarks/planted_recovery.py --sparsity batchtopk    # another kind of sparsity
    python benchmarks/planted_recovery.py --seeds 0 1 --noise 0.1 --overlap 0.2
    python benchmarks/planted_recovery.py --pose nms --group D32 --d-in 96 --planted 49 --latents 80 --n-active 4 \\
        --k 4 --noise 0.1 --samples 20000 --steps 200 --batch-size 256 --lr 0.005 --dead-after 2000 --resample-every 25

One line a seed: distinct atoms; the share of them matched at a cosine above 0.95; the share of shapes (planted base
latents) of which every atom is; latents that match an atom, and the share of those whose stabilizer is exactly the
atom's; FVU and L0 on held-out samples; seconds of training, by the clock and of the processor.

`--compare`: the tied crosscoder, and the untied one in full runs of ever more steps (each with its own schedule), until
one matches --goal of the atoms. Options given apply to both, but for --latents, --steps, --batch-size, --dead-after and
--resample-every, which are then the tied one's.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from dataclasses import dataclass

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.models.forms.tied import translates
from groupcc.models.options import parse as parse_options
from groupcc.models.sparsity import SPARSITIES, sparsity_of
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match

UNTIED = {"latents": 256, "k": 4, "steps": 1000, "batch_size": 512, "dead_after": 20_000, "resample_every": 0}
TIED = {"latents": 24, "k": 3, "steps": 80, "batch_size": 128, "dead_after": 500, "resample_every": 10}

# √2 apart, so that the untied crosscoder is charged for at most 1.4 times the steps it needs.
LADDER = (10, 14, 20, 28, 40, 57, 80, 113, 160, 226, 320, 453, 640, 905, 1280, 1810, 2560)


@dataclass(frozen=True)
class Row:
    """One run."""

    seed: int
    atoms: int
    recovered: float
    shapes: float
    latents: int
    stabilizers_exact: float
    fvu: float
    l0: float
    seconds: float
    processor_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.seed:>5}{self.atoms:>7}{self.recovered:>11.1%}{self.shapes:>9.1%}{self.latents:>9}"
            f"{self.stabilizers_exact:>8.1%}{self.fvu:>10.1e}{self.l0:>7.2f}{self.seconds:>9.2f}{self.processor_seconds:>11.2f}"
        )


HEAD = (
    f"{'seed':>5}{'atoms':>7}{'recovered':>11}{'shapes':>9}{'latents':>9}{'exact':>8}{'FVU':>10}{'L0':>7}{'seconds':>9}"
    f"{'processor':>11}"
)


def run(seed: int, args: argparse.Namespace) -> Row:
    """Plants, samples, trains and scores; deterministic in the seed (and the thread count)."""
    truth = planted(args.group, args.d_in, args.planted, overlap=args.overlap, seed=seed)
    acts, _ = truth.sample(args.samples, args.n_active, noise=args.noise, seed=seed + 1000)
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(
            group=args.group,
            d_in=args.d_in,
            n_latents=args.latents,
            k=args.k,
            encoder="orbit",
            sparsity=args.sparsity,
            sparsity_options=parse_options(args.sparsity, sparsity_of(args.sparsity).options, args.sparsity_option),
            dead_after=args.dead_after,
            tied=args.pose is not None,
            pose=args.pose,
            pose_distance=0.0,  # planted latents are white over the group: neighbours have nothing in common
        ),
        seed=seed,
    )
    settings = TrainConfig(
        augment=False,
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        resample_every=args.resample_every,
        seed=seed,
        held_out=0.02,
        progress=False,
    )
    started, started_processor = time.monotonic(), time.process_time()
    result = train(crosscoder, acts, settings)
    seconds, processor_seconds = time.monotonic() - started, time.process_time() - started_processor
    recovery = match(crosscoder.W_dec, truth)
    atoms = crosscoder.W_dec.detach() if args.pose is None else translates(crosscoder.W_dec.detach(), truth.group)
    found = match(atoms, truth)
    atlas = analyze(crosscoder)
    exact = recovery.stabilizer_exact([stabilizer.mask for stabilizer in atlas.stabilizers])
    latents = len(recovery.recovered_latents())
    return Row(
        seed,
        len(truth.atoms),
        found.share(),
        found.share_of_shapes(),
        latents,
        exact,
        result.metrics["fvu"],
        result.metrics["l0"],
        seconds,
        processor_seconds,
    )


def compare(args: argparse.Namespace) -> None:
    """The tied run, and the shortest untied run in `LADDER` that matches args.goal of the atoms; medians at the end."""
    tied, untied = copy.copy(args), copy.copy(args)
    tied.pose, untied.pose = args.pose or "nms", None
    _fill(tied, TIED)
    for name in UNTIED:
        if name != "k":
            setattr(untied, name, UNTIED[name])
    untied.k = tied.k
    for side in (tied, untied):  # what only a first run pays for
        side_once = copy.copy(side)
        side_once.steps = 12
        run(args.seeds[0], side_once)
    print(f"{'':>8}{'steps':>7}{HEAD}")
    pairs = []
    for seed in args.seeds:
        ours = run(seed, tied)
        print(f"{'tied':>8}{tied.steps:>7}{ours}", flush=True)
        for untied.steps in LADDER:
            theirs = run(seed, untied)
            if theirs.recovered >= args.goal:
                break
        print(f"{'untied':>8}{untied.steps:>7}{theirs}", flush=True)
        pairs.append((ours, theirs))
    for name in ("seconds", "processor_seconds"):
        ours_s, theirs_s = ([getattr(row, name) for row in side] for side in zip(*pairs, strict=True))
        ratio = statistics.median(theirs / ours for ours, theirs in zip(ours_s, theirs_s, strict=True))
        print(
            f"{name.replace('_', ' ')}, medians: tied {statistics.median(ours_s):.2f}, "
            f"untied {statistics.median(theirs_s):.2f}; untied / tied {ratio:.2f}"
        )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D8")
    parser.add_argument("--d-in", type=int, default=24)
    parser.add_argument("--planted", type=int, default=16, help="planted base latents")
    parser.add_argument("--latents", type=int, help="latents of the crosscoder; of a tied one, base latents")
    parser.add_argument("--pose", choices=["max", "nms"], default=None, help="tied")
    parser.add_argument("--sparsity", choices=[kind for kind in SPARSITIES if kind != "l1"], default="topk")
    parser.add_argument("--sparsity-option", action="append", default=[], metavar="NAME=VALUE", help="of that kind")
    parser.add_argument("--compare", action="store_true", help="tied and untied, with the seconds that each needs")
    parser.add_argument("--goal", type=float, default=0.97, help="--compare: share of atoms the untied one must match")
    parser.add_argument("--dead-after", type=int)
    parser.add_argument("--resample-every", type=int, help="TrainConfig.resample_every")
    parser.add_argument("--n-active", type=int, default=3)
    parser.add_argument("--k", type=int)
    parser.add_argument("--overlap", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    if not args.compare:
        _fill(args, UNTIED if args.pose is None else TIED)
    return args


def _fill(args: argparse.Namespace, defaults: dict[str, int]) -> None:
    for name, value in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    if args.compare:
        compare(args)
        return
    print(HEAD)
    for seed in args.seeds:
        print(run(seed, args), flush=True)


if __name__ == "__main__":
    main()
