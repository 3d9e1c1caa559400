"""The crosscoder against plain sparse autoencoders at equal L0, dictionary size and data, where the truth is known.

    python benchmarks/against_sae.py                       # every case, seeds 0 to 2: the tables of the README
    python benchmarks/against_sae.py --case bank --orbits DIR
    python benchmarks/against_sae.py --case clean --group D16 --d-in 48 --latents 512

A case is what is planted (`CASES`), or "bank": `zoo.known_bank` on photographs (benchmarks/known_bank.py). Options
change what a case says.

- crosscoder: untied, "orbit" encoder. With --tied also tied, at as many atoms.
- SAE, upright: sees the untransformed activations alone. SAE, augmented: the upright activations of transformed
  images, as many of them as the crosscoder sees orbits. Both then get a decoder for every block, by least squares of
  the transformed activations on their latents (`groupcc.training.regress_decoder`), and are analysed as the crosscoder
  is. Without that regression an autoencoder's latent is one vector of D numbers: it has no stabilizer, and nothing
  says which latents are one another's copies, so there is nothing to score it by.

Each table has one row a side, the mean over the seeds and their range.

- recovered: share of atoms that some latent matches at a cosine above 0.95 over all blocks. MMCS: mean best cosine.
- stabilizers: share of the live latents that match an atom whose stabilizer is exactly the atom's.
- ARI, NMI: the adjusted Rand index and the normalised mutual information (scikit-learn) of families against shapes.
  "atoms": over the atoms, the same for every side, each in the family of the latent that matches it, and alone where
  none does (NMI, which is not corrected for chance, is some 0.7 then). "used": over the side's latents that are neither
  dead nor spare (`Atlas.contribution`), each counted to the shape of its nearest atom, near or not. "atoms" is blind to
  used latents that match no atom, "used" to atoms that no latent matches; "both" is over all atoms and those latents
  together. "live": over those that fire, each spare one alone.
- used, spare: how many latents are so. FVU: over all blocks. These, and what is dead or spare, on held-out examples.

Below it, for each ARI, what the crosscoder leads the best autoencoder by (means), and the spread: the larger of the
two sides' ranges over the seeds.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import time
from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, harvest, train
from groupcc.analysis import Atlas
from groupcc.cli.demo import PHOTOGRAPH, crops
from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import split_by_image
from groupcc.training.baseline import regress_decoder, train_sae
from groupcc.zoo.bank import known_bank
from groupcc.zoo.planted import PlantedDictionary, planted
from groupcc.zoo.recovery import match

PLANTED = {"group": "D8", "d_in": 24, "planted": 16, "n_active": 3, "noise": 0.0, "latents": 256, "k": 4, "lr": 0.02}
PLANTED |= {"sae_lr": 0.02, "held_out": 0.02, "init": "random"}
CASES = {
    "clean": PLANTED,
    "noisy": PLANTED | {"noise": 0.2},
    "16 channels": PLANTED | {"d_in": 16},
    "8 channels": PLANTED | {"d_in": 8},
    "8 channels, noisy": PLANTED | {"d_in": 8, "noise": 0.2},
    "bank": PLANTED | {"group": "D16", "k": 16, "lr": 3e-3, "sae_lr": 0.01, "held_out": 0.2},
}
COLUMNS = (
    "recovered",
    "MMCS",
    "stabilizers",
    "ARI, atoms",
    "NMI, atoms",
    "ARI, both",
    "ARI, used",
    "NMI, used",
    "ARI, live",
    "used",
    "spare",
    "FVU",
    "seconds",
)


class Part(Orbits):
    """Some of the examples of orbits."""

    def __init__(self, orbits: Orbits, indices: torch.Tensor) -> None:
        self.orbits, self.indices = orbits, indices
        self.image_ids = orbits.image_ids[indices]

    @property
    def photograph_ids(self) -> torch.Tensor:
        return self.orbits.photograph_ids[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.orbits.take(self.indices[indices])


def problem(seed: int, args: argparse.Namespace) -> tuple[PlantedDictionary, Orbits, Orbits]:
    """The truth, orbits to train on (`args.held_out` of them are left out), and those to evaluate on."""
    if args.case != "bank":
        truth = planted(args.group, args.d_in, args.planted, seed=seed)
        acts, _ = truth.sample(args.samples, args.n_active, noise=args.noise, seed=seed + 1000)
        held_out, _ = truth.sample(2000, args.n_active, noise=args.noise, seed=seed + 2000)
        orbits, held_out = (as_orbits(part, *truth.base.shape[1:]) for part in (acts, held_out))
        return truth, orbits, held_out
    bank = known_bank(args.group, seed=seed)
    assert bank.truth is not None
    orbits = harvest(
        bank,
        "mix",
        list(crops("all"))[: args.images],
        args.group,
        positions=f"random:{args.positions}",
        input_size=97,
        forward_batch=32,
        groups=PHOTOGRAPH,
        seed=seed,
        progress=False,
        out=args.orbits and f"{args.orbits}/{args.group}-{seed}",
    )
    return bank.truth, orbits, Part(orbits, split_by_image(orbits, args.held_out, seed)[1])


def sides(orbits: Orbits, d_in: int, seed: int, args: argparse.Namespace) -> Iterator[tuple[str, GroupCrosscoder]]:
    """Each side's name and its trained crosscoder."""
    config = CrosscoderConfig(
        group=args.group, d_in=d_in, n_latents=args.latents, k=args.k, encoder="orbit", dead_after=args.dead_after
    )
    settings = TrainConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        lr=args.lr,
        seed=seed,
        held_out=args.held_out,
        augment=args.case == "bank",
        init_W_dec=args.init,
        progress=False,
    )
    yield "crosscoder", train(GroupCrosscoder(config, seed=seed), orbits, settings).crosscoder
    if args.tied:
        base = dataclasses.replace(
            config,
            tied=True,
            pose="nms",
            pose_distance=config.pose_distance if args.case == "bank" else 0.0,
            n_latents=max(args.latents // GroupCrosscoder(config).group.order, args.k),
        )
        yield "crosscoder, tied", train(GroupCrosscoder(base, seed=seed), orbits, settings).crosscoder
    for name, augment in (("SAE, upright", False), ("SAE, augmented", True)):
        of_sae = dataclasses.replace(settings, augment=augment, lr=args.sae_lr)
        sae = train_sae(orbits, config, of_sae).crosscoder
        yield name, regress_decoder(sae, orbits, config.group, of_sae)


def score(trained: GroupCrosscoder, truth: PlantedDictionary, held_out: Orbits) -> dict[str, float]:
    """All of COLUMNS but the seconds."""
    atlas = analyze(trained, held_out)
    assert atlas.contribution is not None
    labels, dead, spare = atlas.families.labels, atlas.dead, atlas.contribution.spare & ~atlas.dead
    of_latents = match(trained.W_dec, truth)
    of_atoms = match((trained.untie() if trained.config.tied else trained).W_dec, truth)
    recovered = [latent for latent in of_latents.recovered_latents() if not dead[latent]]
    found = np.array([stabilizer.mask for stabilizer in atlas.stabilizers], dtype=bool)[recovered]
    expected = of_latents.atom_stabilizers[of_latents.latent_atom[recovered].numpy()]

    per_latent = truth.group.order if trained.config.tied else 1
    of_each_atom = labels[of_atoms.atom_latent.div(per_latent, rounding_mode="floor")]
    in_family = (of_atoms.atom_cosine > 0.95) & (of_each_atom >= 0)
    of_each_atom = torch.where(in_family, of_each_atom, _alone(atlas, len(in_family)))
    shapes = truth.atom_base[of_latents.latent_atom]
    with_spare = torch.where(spare, _alone(atlas, len(labels)), labels)
    used, live = ~dead & ~spare, ~dead
    strange = used & (of_latents.latent_cosine <= 0.95)
    both = torch.cat([of_each_atom, labels[strange]])
    metrics = atlas.metrics or {}
    return {
        "recovered": of_atoms.share(),
        "MMCS": float(of_atoms.atom_cosine.mean()),
        "stabilizers": float((found == expected).all(axis=1).mean()) if recovered else math.nan,
        "ARI, atoms": float(adjusted_rand_score(truth.atom_base, of_each_atom)),
        "NMI, atoms": float(normalized_mutual_info_score(truth.atom_base, of_each_atom)),
        "ARI, both": float(adjusted_rand_score(torch.cat([truth.atom_base, shapes[strange]]), both)),
        "ARI, used": float(adjusted_rand_score(shapes[used], labels[used])),
        "NMI, used": float(normalized_mutual_info_score(shapes[used], labels[used])),
        "ARI, live": float(adjusted_rand_score(shapes[live], with_spare[live])),
        "used": float(used.sum()),
        "spare": float(spare.sum()),
        "FVU": float(metrics["fvu"]),
    }


def _alone(atlas: Atlas, count: int) -> torch.Tensor:
    """A family of its own for each."""
    return len(atlas.families) + torch.arange(count)


def margins(rows: dict[str, list[dict[str, float]]]) -> list[str]:
    """For each ARI, in words: the crosscoder's lead over the best autoencoder, and the spread over the seeds."""
    lines = []
    for column in (column for column in COLUMNS if column.startswith("ARI")):
        values = {name: [row[column] for row in found] for name, found in rows.items()}
        ours, best = values["crosscoder"], max((v for name, v in values.items() if "SAE" in name), key=np.mean)
        lead = float(np.mean(ours) - np.mean(best))
        spread = max(max(side) - min(side) for side in (ours, best))
        verdict = "beats" if lead > spread else "is beaten by" if lead < -spread else "level with"
        lines.append(f"{column}: lead {lead:+.3f}, spread {spread:.3f}: crosscoder {verdict} the best SAE")
    return lines


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", choices=list(CASES), nargs="+", default=list(CASES), dest="cases")
    parser.add_argument("--tied", action="store_true")
    parser.add_argument("--group")
    parser.add_argument("--d-in", type=int, help="planted: channels")
    parser.add_argument("--planted", type=int, help="planted: shapes")
    parser.add_argument("--n-active", type=int, help="planted: atoms in an example")
    parser.add_argument("--noise", type=float, help="planted: as a multiple of the signal's root mean square")
    parser.add_argument("--samples", type=int, default=40_000, help="planted: orbits to train on")
    parser.add_argument("--images", type=int, default=None, help="bank: only the first so many crops")
    parser.add_argument("--positions", type=int, default=256, help="bank: random positions in each crop")
    parser.add_argument(
        "--orbits", default=None, help="bank: keep the harvested orbits in this directory, or find them"
    )
    parser.add_argument("--latents", type=int)
    parser.add_argument("--k", type=int)
    parser.add_argument("--dead-after", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--lr", type=float)
    parser.add_argument("--sae-lr", type=float)
    parser.add_argument("--init", choices=["random", "examples"], help="TrainConfig.init_W_dec")
    parser.add_argument("--held-out", type=float, help="share of the photographs, or planted orbits, not trained on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    for case in args.cases:
        asked = {name: value for name, value in vars(args).items() if value is not None}
        compare(argparse.Namespace(**vars(args) | CASES[case] | asked, case=case))


def compare(args: argparse.Namespace) -> None:
    """Trains and scores every side on every seed, and prints the table of one case."""
    rows: dict[str, list[dict[str, float]]] = {}
    for seed in args.seeds:
        truth, orbits, held_out = problem(seed, args)
        started = time.monotonic()
        for name, trained in sides(orbits, truth.base.shape[2], seed, args):
            seconds = time.monotonic() - started
            rows.setdefault(name, []).append(score(trained, truth, held_out) | {"seconds": seconds})
            started = time.monotonic()
    atoms, d_in = len(truth.atoms), truth.base.shape[2]
    title = f"{args.case}: {args.group}, {atoms} atoms in {d_in} channels, seeds {' '.join(map(str, args.seeds))}"
    print(f"| {title} | " + " | ".join(COLUMNS) + " |")
    print("|---" * (1 + len(COLUMNS)) + "|")
    for name, found in rows.items():
        print(f"| {name} | " + " | ".join(_spread([row[column] for row in found]) for column in COLUMNS) + " |")
    print("", *margins(rows), "", sep="\n", flush=True)


def _spread(values: list[float]) -> str:
    """Mean, least and most of those that there are."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "none"
    return f"{sum(known) / len(known):.3g} ({min(known):.3g} to {max(known):.3g})"


if __name__ == "__main__":
    main()
