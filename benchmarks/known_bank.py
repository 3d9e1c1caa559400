"""From photographs to labels with every answer known: how much of `groupcc.zoo.known_bank` a crosscoder recovers.

    python benchmarks/known_bank.py                       # D16, ten shapes, untied, seeds 0 to 2, and the controls
    python benchmarks/known_bank.py --pose nms            # tied, --latents counts base latents
    python benchmarks/known_bank.py --group D8 --seeds 0 --controls

The bank's 2/3 as many channels as filters are harvested on all bundled photographs, whole and in quarters; a crosscoder
is trained on them and analysed. A latent is recovered where its cosine with an atom, over all blocks, exceeds 0.95.

One table a seed. For each shape: its atoms, the share of them recovered and their mean best cosine, its recovered
latents, the share of those whose stabilizer is exactly their atom's, and the families that they are in. Then the same
of all, with the adjusted Rand index (scikit-learn) of families against shapes over the recovered latents, and over all
that are used, neither dead nor spare (each counted to the shape of its nearest atom), FVU and L0.

Controls have random weights: "filters" is the bank with noise for filters, none of which is another's transform; "net"
is the bundled net's architecture as PyTorch initialises it, biases and all. Printed are live and used latents, how many
of them are called invariant, of how many of these the answers to moved orbits say otherwise (an estimate that does not
look at the decoder), and how many get any stabilizer but C1. In a net whose filters have a mean, brightness and
colour are invariant and rightly called so; the bank's filters, noise too, have mean 0.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import nn

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, harvest, train
from groupcc.analysis import Atlas
from groupcc.cli.demo import PHOTOGRAPH, crops
from groupcc.models.forms.tied import translates
from groupcc.zoo.bank import BankTruth, known_bank
from groupcc.zoo.net import SmallInception
from groupcc.zoo.recovery import Recovery, match
from groupcc.zoo.shapes import SHAPES

NET_LAYER = "mixed3b"


@dataclass(frozen=True)
class Trained:
    """A trained crosscoder and what was read off it."""

    crosscoder: GroupCrosscoder
    atlas: Atlas
    harvest_seconds: float
    train_seconds: float


@dataclass(frozen=True)
class Row:
    """One shape, or all of them (`kind` "all"). NaN where there is nothing to take a share of."""

    kind: str
    atoms: int
    recovered: float
    mmcs: float
    latents: int
    exact: float
    families: int


@dataclass(frozen=True)
class Score:
    """What the table prints of one bank."""

    rows: list[Row]
    ari: float
    ari_used: float
    used: int


def run(name: str, net: nn.Module, layer: str, input_size: int, seed: int, args: argparse.Namespace) -> Trained:
    """Harvests, trains and analyses; deterministic in the seed (and the thread count)."""
    started = time.monotonic()
    images = list(crops(args.split))[: args.images]
    orbits = harvest(
        net,
        layer,
        images,
        args.group,
        positions=f"random:{args.positions}",
        input_size=input_size,
        forward_batch=32,
        groups=PHOTOGRAPH,
        seed=seed,
        progress=args.progress,
        out=args.orbits and f"{args.orbits}/{args.group}{name}-{seed}",
    )
    harvested = time.monotonic()
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(
            group=args.group,
            d_in=orbits.d_in,
            n_latents=args.latents or (24 if args.pose else 256),
            k=args.k,
            encoder="orbit",
            dead_after=args.dead_after,
            tied=args.pose is not None,
            pose=args.pose,
        ),
        seed=seed,
    )
    settings = TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        augment=True,
        init_W_dec=args.init,
        held_out=0.1,
        seed=seed,
        progress=args.progress,
    )
    trained = train(crosscoder, orbits, settings).crosscoder
    finished = time.monotonic()
    return Trained(trained, analyze(trained, orbits), harvested - started, finished - harvested)


def score(trained: Trained, truth: BankTruth) -> Score:
    """Compares decoder blocks, stabilizers and families with the bank's truth; dead latents are left out."""
    W_dec = trained.crosscoder.W_dec.detach()
    atlas = trained.atlas
    recovery = match(W_dec, truth)
    dictionary = translates(W_dec, truth.group) if trained.crosscoder.config.tied else W_dec
    of_atoms = match(dictionary, truth)
    latents = [latent for latent in recovery.recovered_latents() if not atlas.dead[latent]]
    used = used_latents(atlas)
    shapes = truth.atom_base[recovery.latent_atom]
    labels = atlas.families.labels
    rows = [
        _row(kind, truth.atom_base == f, [x for x in latents if shapes[x] == f], atlas, recovery, of_atoms)
        for f, kind in enumerate(truth.kinds)
    ]
    rows.append(_row("all", torch.ones(len(truth.atoms), dtype=torch.bool), latents, atlas, recovery, of_atoms))
    agreement = [float(adjusted_rand_score(shapes[some], labels[some])) if some else np.nan for some in (latents, used)]
    return Score(rows, agreement[0], agreement[1], len(used))


def used_latents(atlas: Atlas) -> list[int]:
    """Those that are neither dead nor spare."""
    left_out = atlas.dead if atlas.contribution is None else atlas.dead | atlas.contribution.spare
    return (~left_out).nonzero()[:, 0].tolist()


def control(which: str, seed: int, args: argparse.Namespace) -> str:
    """What is said of a net with random weights, as a line."""
    if which == "filters":
        bank = known_bank(args.group, args.kinds, superposition=args.superposition, seed=seed, control=True)
        atlas = run("-filters", bank, "mix", args.input_size, seed, args).atlas
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net = SmallInception(10).eval().requires_grad_(False)
        atlas = run("-net", net, NET_LAYER, args.net_input_size, seed, args).atlas
    kinds = [kind for kind in atlas.kinds if kind != "dead"]
    used = [atlas.kinds[latent] for latent in used_latents(atlas)]
    called = kinds.count("invariant")
    assert atlas.evidence is not None
    answers = [estimate["activations"] for estimate in atlas.evidence.estimates]
    unconfirmed = sum(
        stabilizer.kind == "invariant" and answer != stabilizer.name
        for stabilizer, answer in zip(atlas.stabilizers, answers, strict=True)
    )
    return (
        f"control, {which}: {len(kinds)} live latents, {called} invariant ({called / max(len(kinds), 1):.1%}), "
        f"{unconfirmed} of them not by their answers to moved orbits ({unconfirmed / max(len(kinds), 1):.1%}), "
        f"{len(kinds) - kinds.count('none')} with a stabilizer of any kind; "
        f"{len(used)} used, {used.count('invariant')} invariant ({used.count('invariant') / max(len(used), 1):.1%})"
    )


def _row(
    kind: str, atoms: torch.Tensor, latents: list[int], atlas: Atlas, recovery: Recovery, of_atoms: Recovery
) -> Row:
    cosine = of_atoms.atom_cosine[atoms]
    right = [
        np.array_equal(atlas.stabilizers[latent].mask, recovery.atom_stabilizers[recovery.latent_atom[latent]])
        for latent in latents
    ]
    return Row(
        kind,
        int(atoms.sum()),
        float((cosine > 0.95).double().mean()),
        float(cosine.mean()),
        len(latents),
        float(np.mean(right)) if right else np.nan,
        len(set(atlas.families.labels[latents].tolist())),
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D16")
    parser.add_argument("--kinds", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--superposition", type=float, default=1.5, help="filters for each channel")
    parser.add_argument("--split", default="all", help="which photographs (train, held_out, all)")
    parser.add_argument("--images", type=int, default=None, help="only the first so many crops, at least 6")
    parser.add_argument("--positions", type=int, default=256, help="random positions in each crop")
    parser.add_argument(
        "--orbits", default=None, help="keep the harvested orbits in this directory, or find them there"
    )
    parser.add_argument("--input-size", type=int, default=97)
    parser.add_argument("--net-input-size", type=int, default=161, help="of the control net")
    parser.add_argument("--latents", type=int, default=None, help="default 256; 24 base latents with --pose")
    parser.add_argument("--pose", choices=["max", "nms"], default=None, help="tied")
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--dead-after", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--init", choices=["random", "examples"], default="random", help="TrainConfig.init_W_dec")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--controls", nargs="*", choices=["filters", "net"], default=["filters"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    for seed in args.seeds:
        bank = known_bank(args.group, args.kinds, superposition=args.superposition, seed=seed)
        assert bank.truth is not None
        trained = run("", bank, "mix", args.input_size, seed, args)
        result = score(trained, bank.truth)
        print(f"seed {seed}: {len(bank.truth.atoms)} filters in {trained.atlas.d_in} channels")
        print(f"{'shape':<20}{'atoms':>6}{'recovered':>11}{'cosine':>8}{'latents':>9}{'exact':>8}{'families':>10}")
        for row in result.rows:
            print(
                f"{row.kind:<20}{row.atoms:>6}{row.recovered:>11.1%}{row.mmcs:>8.3f}{row.latents:>9}{row.exact:>8.1%}"
                f"{row.families:>10}"
            )
        metrics = trained.atlas.metrics
        assert metrics is not None
        print(
            f"family ARI {result.ari:.3f} recovered, {result.ari_used:.3f} of {result.used} used; "
            f"FVU {metrics['fvu']:.3f}, L0 {metrics['l0']:.1f}, tolerance {trained.atlas.tolerance:.3f}; "
            f"harvest {trained.harvest_seconds:.0f} s, training {trained.train_seconds:.0f} s",
            flush=True,
        )
        for which in args.controls:
            print(control(which, seed, args), flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
