"""A net whose filters come in whole orbits: does the pipeline say so?

    python benchmarks/positive_control.py                 # layer second, seed 0
    python benchmarks/positive_control.py --layer lift --seeds 0 1 2

`groupcc.zoo.equivariant_net` is trained, and equivariant under D4 by its construction. The stabilizer of each of its
filters is known, and every filter is there in every pose. A layer is harvested on `groupcc.zoo.real_crops`; a
crosscoder is trained on the orbits and analysed.

A filter counts if its channels are not 0 everywhere. A latent *is* a filter where its cosine with an atom that the
filter writes (`EquivariantNet.truth`), over all blocks, exceeds 0.95. One table a seed, a row for each stabilizer:

- filters, and the atoms that they write;
- the share of these atoms that some latent is;
- the latents that are such a filter, the share of them whose stabilizer is exactly the filter's, the share whose label
  is decided, and the share whose label is decided and another than the filter's (*wrong*);
- the share of them in a family that has all atoms of the filter (*whole*), and the mean share of orientations in which
  `Atlas.coverage` says that their family has a detector. Both are 1 if everything is learned and read as it is.

Below: the same coverage over all used latents, filters or not. A sum of filters comes in orbits too.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, OrbitStore, TrainConfig, analyze, harvest, train
from groupcc.analysis import Atlas
from groupcc.zoo import equivariant_net, real_crops
from groupcc.zoo.planted import PlantedDictionary
from groupcc.zoo.recovery import Recovery, match

HEAD = ("stabilizer", "filters", "atoms", "recovered", "latents", "exact", "decided", "wrong", "whole", "covered")


@dataclass(frozen=True)
class Row:
    """The filters of one stabilizer, or all of them ("all"). NaN where there is nothing to take a share of."""

    stabilizer: str
    filters: int
    atoms: int
    recovered: float
    latents: int
    exact: float
    decided: float
    wrong: float
    whole: float
    covered: float

    def __str__(self) -> str:
        cells = [self.stabilizer, str(self.filters), str(self.atoms), f"{self.recovered:.1%}", str(self.latents)]
        cells += [f"{share:.1%}" for share in (self.exact, self.decided, self.wrong, self.whole, self.covered)]
        return f"| {' | '.join(cells)} |"


def live_filters(orbits: OrbitStore, truth: PlantedDictionary) -> torch.Tensor:
    """Returns which filters answer anywhere, bool [F]: their eight channels lie side by side."""
    top = torch.zeros(orbits.d_in)
    for some in torch.arange(len(orbits)).split(2048):
        top = torch.maximum(top, orbits.take(some).float().amax((0, 1)))
    return top.view(len(truth.base), -1).amax(1) > 0


def score(W_dec: torch.Tensor, atlas: Atlas, truth: PlantedDictionary, live: torch.Tensor) -> list[Row]:
    """Compares a dictionary with what single filters write, by stabilizer, then in all; dead latents are left out."""
    recovery = match(W_dec, truth)
    latents = [latent for latent in recovery.recovered_latents() if not atlas.dead[latent]]
    filters = truth.atom_base[recovery.latent_atom]
    kinds = [s.name for s in truth.stabilizers]
    rows = []
    for kind in [*dict.fromkeys(kinds), "all"]:
        chosen = live & torch.tensor([kind in (name, "all") for name in kinds])
        some = [latent for latent in latents if chosen[filters[latent]]]
        rows.append(_row(kind, chosen, some, atlas, truth, recovery))
    return [row for row in rows if row.filters]


def _row(
    kind: str, chosen: torch.Tensor, latents: list[int], atlas: Atlas, truth: PlantedDictionary, recovery: Recovery
) -> Row:
    atoms = chosen[truth.atom_base]
    matched = recovery.latent_atom
    decided = [atlas.stabilizers[x].kind != "undecided" for x in latents]
    exact = [np.array_equal(atlas.stabilizers[x].mask, truth.atom_stabilizers[matched[x]]) for x in latents]
    return Row(
        kind,
        int(chosen.sum()),
        int(atoms.sum()),
        _mean((recovery.atom_cosine[atoms] > 0.95).tolist()),
        len(latents),
        _mean(exact),
        _mean(decided),
        _mean([stated and not right for stated, right in zip(decided, exact, strict=True)]),
        _mean([_is_whole(x, atlas, truth, recovery) for x in latents]),
        _mean(covered(atlas, latents)),
    )


def _is_whole(latent: int, atlas: Atlas, truth: PlantedDictionary, recovery: Recovery) -> bool:
    """Whether the latent's family has every atom of the filter that the latent is."""
    family = int(atlas.families.labels[latent])
    members = set(atlas.families.members(family)) if family >= 0 else set()
    has = {int(recovery.latent_atom[x]) for x in members & set(recovery.recovered_latents())}
    own = truth.atom_base == truth.atom_base[recovery.latent_atom[latent]]
    return set(own.nonzero()[:, 0].tolist()) <= has


def covered(atlas: Atlas, latents: list[int]) -> list[float]:
    """Returns of each latent the share of orientations that its family covers; 0 without a family."""
    shares = []
    for latent in latents:
        family = int(atlas.families.labels[latent])
        coverage = atlas.coverage(family) if family >= 0 else None
        shares.append(coverage.covered if coverage is not None else 0.0)
    return shares


def used_latents(atlas: Atlas) -> list[int]:
    """Returns those that are neither dead nor spare."""
    left_out = atlas.dead if atlas.contribution is None else atlas.dead | atlas.contribution.spare
    return (~left_out).nonzero()[:, 0].tolist()


def _mean(values: list[bool] | list[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def run(seed: int, args: argparse.Namespace) -> tuple[GroupCrosscoder, Atlas, OrbitStore]:
    """Harvests, trains and analyses; deterministic in the seed (and the thread count)."""
    orbits = harvest(
        equivariant_net(),
        args.layer,
        real_crops(args.images, size=args.input_size * 3 // 2, seed=seed),
        "D4",
        groups="parent",
        positions=f"random:{args.positions}",
        input_size=args.input_size,
        seed=seed,
        progress=args.progress,
    )
    config = CrosscoderConfig(
        group="D4", d_in=orbits.d_in, n_latents=args.latents, k=args.k, encoder="orbit", dead_after=args.dead_after
    )
    settings = TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        augment=True,
        init_W_dec=args.init,
        held_out=0.2,
        seed=seed,
        progress=args.progress,
    )
    crosscoder = train(GroupCrosscoder(config, seed=seed), orbits, settings).crosscoder
    return crosscoder, analyze(crosscoder, orbits), orbits


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="second", choices=["lift", "second", "top"])
    parser.add_argument("--images", type=int, default=200, help="crops of photographs")
    parser.add_argument("--positions", type=int, default=100, help="random positions in each crop")
    parser.add_argument("--input-size", type=int, default=129, help="8n + 1 pixels")
    parser.add_argument("--latents", type=int, default=128)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--dead-after", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--init", choices=["random", "examples"], default="random", help="TrainConfig.init_W_dec")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    truth = equivariant_net().truth(args.layer)
    for seed in args.seeds:
        started = time.monotonic()
        crosscoder, atlas, orbits = run(seed, args)
        live = live_filters(orbits, truth)
        print(f"{args.layer}, seed {seed}: {int(live.sum())} of {len(live)} filters live, {len(orbits)} examples\n")
        print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
        for row in score(crosscoder.W_dec.detach(), atlas, truth, live):
            print(row)
        used = used_latents(atlas)
        metrics = atlas.metrics or {}
        print(
            f"\n{len(used)} used latents in {len(atlas.families)} families; their families cover "
            f"{_mean(covered(atlas, used)):.1%} of the orientations. FVU {metrics['fvu']:.3f}, L0 {metrics['l0']:.1f}; "
            f"{time.monotonic() - started:.0f} s\n",
            flush=True,
        )


if __name__ == "__main__":
    main()
