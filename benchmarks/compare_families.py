"""Whether families that are matched by what they fire for are the right ones, where the decoders know.

    python benchmarks/compare_families.py                  # bundled net's mixed3b, D8, 256 latents, seeds 0 and 1

Two crosscoders are trained on one layer, so their decoders can be compared, and matched by activations as two layers
would be. A family "is there" where the other dictionary has one with a decoder cosine of at least 0.75. Then an eighth
of the first dictionary's families is taken out of the second one: all of its families with a cosine of 0.6 or more to
any of them; so often, with other ones each time. One line a way to match: of the families that are there which share is
matched to one with a cosine of at least 0.6, to another one, unclear, or vanished; and of those taken out which share
is matched, unclear or vanished. "largest sum" matches as the decoders are, above the same threshold.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
import torch

import groupcc
from groupcc.analysis.compare.atlases import decoder_likeness
from groupcc.analysis.compare.firing import compare_firing, family_firing, most_places
from groupcc.analysis.compare.shared_places import shared_places
from groupcc.cli.demo import crops

THERE = 0.75
LIKE = 0.6
SHARE = 8


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layer", default="mixed3b")
    parser.add_argument("--group", default="D8")
    parser.add_argument("--split", default="all", help="of the bundled photographs")
    parser.add_argument("--input-size", type=int, default=129)
    parser.add_argument("--positions", default="random:40")
    parser.add_argument("--latents", type=int, nargs=2, default=(256, 256))
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--steps", type=int, nargs=2, default=(1200, 1200))
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def trained(orbits: groupcc.OrbitStore, seed: int, latents: int, steps: int, k: int) -> tuple:
    """The atlas and the crosscoder of one side."""
    config = groupcc.CrosscoderConfig(
        group=orbits.group.name, d_in=orbits.d_in, n_latents=latents, k=k, encoder="orbit", dead_after=8000
    )
    settings = groupcc.TrainConfig(
        steps=steps, batch_size=256, lr=1e-3, augment=True, init_W_dec="examples", seed=seed, progress=False
    )
    crosscoder = groupcc.train(groupcc.GroupCrosscoder(config, seed=seed), orbits, settings).crosscoder
    return groupcc.analyze(crosscoder, orbits), crosscoder


def largest_sum(similarity: np.ndarray, threshold: float) -> dict[int, int]:
    from scipy.optimize import linear_sum_assignment

    kept = np.where(similarity >= threshold, similarity, 0)
    return {int(i): int(j) for i, j in zip(*linear_sum_assignment(kept, maximize=True), strict=True) if kept[i, j]}


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    photographs = list(crops(args.split))
    orbits = groupcc.harvest(
        "bundled", args.layer, photographs, args.group,
        input_size=args.input_size, positions=args.positions, progress=False,
    )  # fmt: skip
    sides = [trained(orbits, seed, args.latents[seed], args.steps[seed], args.k) for seed in (0, 1)]
    (a, first), (b, second) = sides
    cosine = decoder_likeness(a, b, (first, second), 0.0)
    places = shared_places(orbits, orbits, most_places(a.group, len(a.families) + len(b.families))).a
    firing = [family_firing(atlas, crosscoder, orbits, places) for atlas, crosscoder in sides]
    told: dict[str, Counter[tuple[bool, str]]] = {"nearest both ways": Counter(), "largest sum": Counter()}
    for repeat in range(args.repeats):
        gone = np.random.default_rng(repeat).permutation(len(cosine))[: len(cosine) // SHARE]
        kept = np.flatnonzero(cosine[gone].max(0) < LIKE)
        likeness = compare_firing(firing[0], firing[1][torch.from_numpy(kept)], a.group)
        matches = {
            "nearest both ways": dict(likeness.matches(likeness.threshold)),
            "largest sum": largest_sum(likeness.similarity, likeness.threshold),
        }
        unclear = likeness.nearest(likeness.threshold)[0]
        for name, pairs in matches.items():
            for i in range(len(cosine)):
                there = i not in gone
                if there and cosine[i, kept].max(initial=0.0) < THERE:
                    continue
                if i in pairs:
                    verdict = "right" if cosine[i, kept[pairs[i]]] >= LIKE else "other"
                elif name == "nearest both ways" and unclear[i] is not None:
                    verdict = "unclear"
                else:
                    verdict = "vanished"
                told[name][there, verdict] += 1
    print(f"{len(a.families)} and {len(b.families)} families, {len(places)} places, D {orbits.d_in}, {args.group}")
    heads = ("there: right", "other", "unclear", "vanished", "gone: matched", "unclear", "vanished")
    print(f"{'':<20}" + "".join(f"{head:>15}" for head in heads))
    for name, counts in told.items():
        totals = {there: max(1, sum(n for (t, _), n in counts.items() if t == there)) for there in (True, False)}
        row = [counts[True, verdict] / totals[True] for verdict in ("right", "other", "unclear", "vanished")]
        row += [counts[False, verdict] / totals[False] for verdict in ("other", "unclear", "vanished")]
        print(f"{name:<20}" + "".join(f"{value:>15.1%}" for value in row))


if __name__ == "__main__":
    main()
