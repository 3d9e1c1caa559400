"""What `residual_share` says where one planted shape lacks half of its blocks in half of its poses.

    python benchmarks/broken_symmetry.py                  # D8, from untied (0) to tied (inf)
    python benchmarks/broken_symmetry.py --steps 1000 --lr 0.004

One line a penalty (in units of √(|G|·d_in); the default of `residual_penalty` is 0.3): FVU on held-out samples, the
share of the base latent that learned the broken shape, the mean share of those that learned another, distinct atoms
matched at a cosine above 0.95 (the broken ones as they are), seconds of training. Above the table, the true share.
"""

from __future__ import annotations

import argparse
import dataclasses
import time

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, train
from groupcc.models.forms.residual import shared
from groupcc.zoo.planted import PlantedDictionary, planted
from groupcc.zoo.recovery import match


def broken(group: str, d_in: int, shapes: int) -> tuple[PlantedDictionary, torch.Tensor, float]:
    """The dictionary, which of its atoms are the broken shape's (bool), and the share that these do not share."""
    truth = planted(group, d_in, shapes, seed=0)
    G = truth.group
    first = next(f for f, stabilizer in enumerate(truth.stabilizers) if stabilizer.order == 1)
    atoms, mine = truth.atoms.clone(), truth.atom_base == first
    atoms[mine & (truth.atom_pose % 4 >= 2), : G.order // 2] = 0
    common = shared(_unit(atoms[mine])[None], G)
    return dataclasses.replace(truth, atoms=atoms), mine, 1 - float(common.square().sum())


def _unit(atoms_AGD: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(atoms_AGD.flatten(1), dim=1).view_as(atoms_AGD)


def run(dictionary: PlantedDictionary, mine: torch.Tensor, scale: float, args: argparse.Namespace) -> str:
    """Trains and scores at one penalty; deterministic for a thread count. A line of the table."""
    acts, _ = dictionary.sample(args.samples, n_active=3, noise=args.noise, seed=1)
    G = dictionary.group.order
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(
            group=args.group,
            d_in=args.d_in,
            n_latents=args.latents,
            k=4,
            encoder="orbit",
            tied="residual",
            residual_penalty=scale * (G * args.d_in) ** 0.5,
            pose="nms",
            pose_distance=0.0,  # planted latents are white over the group: neighbours have nothing in common
            dead_after=2000,
        )
    )
    started = time.monotonic()
    settings = TrainConfig(
        augment=False, resample_every=0, steps=args.steps, batch_size=512, lr=args.lr, held_out=0.05, progress=False
    )
    fvu = train(crosscoder, acts, settings).metrics["fvu"]
    seconds = time.monotonic() - started
    share = crosscoder.residual_share()
    found = match(crosscoder.untie().W_dec, dataclasses.replace(dictionary, atoms=_unit(dictionary.atoms)))
    owner = int((found.atom_latent[mine] // G).mode().values)
    others = sorted({int(a) // G for a in found.atom_latent[~mine & (found.atom_cosine > 0.95)]} - {owner})
    mean = float(share[others].mean()) if others else float("nan")
    return f"{scale:>8g}{fvu:>10.1e}{float(share[owner]):>9.3f}{mean:>9.4f}{found.share():>11.1%}{seconds:>9.1f}"


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D8")
    parser.add_argument("--d-in", type=int, default=24)
    parser.add_argument("--planted", type=int, default=16, help="planted base latents")
    parser.add_argument("--latents", type=int, default=24, help="base latents of the crosscoder")
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--penalties", type=float, nargs="+", default=[0, 0.03, 0.1, 0.3, 1, 3, float("inf")])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    dictionary, mine, true_share = broken(args.group, args.d_in, args.planted)
    print(f"true share {true_share:.3f}")
    print(f"{'penalty':>8}{'FVU':>10}{'broken':>9}{'others':>9}{'recovered':>11}{'seconds':>9}")
    for scale in args.penalties:
        print(run(dictionary, mine, scale, args), flush=True)


if __name__ == "__main__":
    main()
