"""Are stated labels right? Shapes tuned to continuous angles, learned well and badly, by the cosine of each latent.

    python benchmarks/labels.py                            # D16 and D8, seeds 0 and 1, five ways to train
    python benchmarks/labels.py --groups D16 --seeds 0 1 2

Each run plants the 14 shapes of `groupcc.zoo.tuned` (mirror axes at any angle), samples orbits of 3 atoms in 100
"photographs", trains an untied crosscoder of 256 latents and analyses it. Five ways: long; short; very short; very
noisy; with more active latents than there are atoms. The shortest and the noisiest leave many latents half learned.

A live latent counts if its cosine with an atom is at least 0.8. Its truth is the type of subgroup that the group can
see of its atom's shape. One row a cosine bin: latents, the share whose label is stated (not "undecided"), the share of
these that is right. Below: of the latents with a stability of at least 0.9 the share that is right, stated or not; the
reasons why labels are not stated; and which stated labels are wrong.

The settings and the limits of `groupcc.analysis` were chosen on seed 0. The other seeds were seen afterwards.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.data import Orbits
from groupcc.zoo.recovery import match
from groupcc.zoo.tuned import SHAPES, tuned

BINS = (0.8, 0.85, 0.9, 0.93, 0.95, 0.97, 0.99, 1.01)

WAYS = {  # steps, noise over the signal's root mean square, k
    "long": (1500, 0.1, 4),
    "short": (300, 0.3, 4),
    "very short": (100, 0.3, 4),
    "very noisy": (600, 0.8, 6),
    "k too large": (600, 0.3, 10),
}


class Photographs(Orbits):
    """Orbits, of which each hundredth is a photograph."""

    def __init__(self, acts: torch.Tensor) -> None:
        self.acts, self.image_ids = acts, torch.arange(len(acts)) * 100 // len(acts)

    def __len__(self) -> int:
        return len(self.acts)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.acts[indices].clone()


class Tally:
    """Counts of latents by cosine bin."""

    def __init__(self) -> None:
        self.bins = {low: Counter[str]() for low in BINS[:-1]}
        self.stable, self.reasons, self.wrong = Counter[str](), Counter[str](), Counter[str]()

    def add(self, group: str, seed: int, way: str) -> None:
        """Trains and analyses one dictionary."""
        steps, noise, k = WAYS[way]
        truth = tuned(group, seed=seed)
        orbits = Photographs(truth.dictionary.sample(8000, n_active=3, noise=noise, seed=seed + 1)[0])
        config = CrosscoderConfig(group=group, d_in=24, n_latents=256, k=k)
        settings = TrainConfig(steps=steps, batch_size=256, progress=False, seed=seed, augment=False)
        crosscoder = train(GroupCrosscoder(config, seed=seed), orbits, settings).crosscoder
        atlas = analyze(crosscoder, orbits)
        assert atlas.evidence is not None
        assert atlas.evidence.stability is not None
        recovery = match(crosscoder.W_dec, truth.dictionary)
        for latent, label in enumerate(atlas.stabilizers):
            cosine, atom = float(recovery.latent_cosine[latent]), int(recovery.latent_atom[latent])
            if label.kind == "dead" or cosine < BINS[0]:
                continue
            right, counts = label.name == truth.atom_types[atom], self.bins[max(b for b in BINS if b <= cosine)]
            counts["latents"] += 1
            if label.kind == "undecided":
                self.reasons["unstable" if "resamples" in label.reason else label.reason.split(" to tell")[0]] += 1
            else:
                counts["stated"] += 1
                counts["right"] += right
                if not right:
                    shape = SHAPES[int(truth.dictionary.atom_base[atom]) % len(SHAPES)]
                    self.wrong[f"{shape} called {label.name}"] += 1
            if float(atlas.evidence.stability[latent]) >= 0.9:
                self.stable["latents"] += 1
                self.stable["right"] += right

    def show(self, group: str) -> None:
        """Prints the table."""
        print(f"{group}\n{'cosine':>14}{'latents':>10}{'stated':>9}{'right':>9}")
        for low, high in itertools.pairwise(BINS):
            counts = self.bins[low]
            if counts["latents"]:
                stated, right = counts["stated"] / counts["latents"], counts["right"] / max(counts["stated"], 1)
                print(f"{low:>7.2f}-{min(high, 1):.2f}{counts['latents']:>12}{stated:>9.1%}{right:>9.1%}")
        for least in (0.85, 0.9):
            above = [counts for low, counts in self.bins.items() if low >= least]
            n, stated, right = (sum(counts[name] for counts in above) for name in ("latents", "stated", "right"))
            print(
                f"  from {least}: {n} latents, {stated / max(n, 1):.1%} stated, {right / max(stated, 1):.1%} of these"
            )
            print(f"    right; {(stated - right) / max(n, 1):.1%} of all stated and wrong")
        stable, right = self.stable["latents"], self.stable["right"]
        print(f"stability >= 0.9: {right / max(stable, 1):.1%} right of {stable}")
        print("not stated:", dict(self.reasons.most_common(6)))
        print("wrong:", dict(self.wrong.most_common(6)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="+", default=["D16", "D8"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    args = parser.parse_args()
    for group in args.groups:
        tally = Tally()
        for seed in args.seeds:
            for way in args.ways:
                tally.add(group, seed, way)
        tally.show(group)


if __name__ == "__main__":
    main()
