"""How much of a planted dictionary an "orbit" crosscoder recovers, and whether each stabilizer is exact.

    python benchmarks/planted_recovery.py                 # D8, 16 latents of 8 stabilizer kinds, seeds 0 to 4
    python benchmarks/planted_recovery.py --pose nms --latents 24 --steps 200 --dead-after 2000   # tied
    python benchmarks/planted_recovery.py --seeds 0 1 --noise 0.1 --overlap 0.2

One line a seed: distinct atoms, the share of them matched at a cosine above 0.95, latents that match an atom, the
share of those whose stabilizer is exactly the atom's, FVU on held-out samples, seconds of training.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.models.tied import translates
from groupcc.zoo.planted import match, planted


@dataclass(frozen=True)
class Row:
    """One run."""

    seed: int
    atoms: int
    recovered: float
    latents: int
    stabilizers_exact: float
    fvu: float
    seconds: float


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
            dead_after=args.dead_after,
            tied=args.pose is not None,
            pose=args.pose,
            pose_distance=0.0,  # planted latents are white over the group: neighbours have nothing in common
        ),
        seed=seed,
    )
    started = time.monotonic()
    result = train(
        crosscoder,
        acts,
        TrainConfig(steps=args.steps, batch_size=args.batch_size, lr=args.lr, seed=seed, held_out=0.02, progress=False),
    )
    seconds = time.monotonic() - started
    recovery = match(crosscoder.W_dec, truth)
    atoms = crosscoder.W_dec.detach() if args.pose is None else translates(crosscoder.W_dec.detach(), truth.group)
    share = match(atoms, truth).share()
    atlas = analyze(crosscoder)
    exact = recovery.stabilizer_exact([stabilizer.mask for stabilizer in atlas.stabilizers])
    latents = len(recovery.recovered_latents())
    return Row(seed, len(truth.atoms), share, latents, exact, result.metrics["fvu"], seconds)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D8")
    parser.add_argument("--d-in", type=int, default=24)
    parser.add_argument("--planted", type=int, default=16, help="planted base latents")
    parser.add_argument("--latents", type=int, default=256, help="latents of the crosscoder")
    parser.add_argument("--pose", choices=["max", "nms"], default=None, help="tied; --latents are base latents")
    parser.add_argument("--dead-after", type=int, default=20_000)
    parser.add_argument("--n-active", type=int, default=3)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--overlap", type=float, default=0.0)
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--samples", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    print(f"{'seed':>5}{'atoms':>7}{'recovered':>11}{'latents':>9}{'exact':>8}{'FVU':>10}{'seconds':>9}")
    for seed in args.seeds:
        row = run(seed, args)
        print(
            f"{row.seed:>5}{row.atoms:>7}{row.recovered:>11.1%}{row.latents:>9}{row.stabilizers_exact:>8.1%}"
            f"{row.fvu:>10.1e}{row.seconds:>9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
