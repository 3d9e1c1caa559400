"""Families of a large dictionary: every pair of latents in every pose, then clusters and synchronised poses.

    python benchmarks/bench_families.py                           # 4096 latents of D32, D = 480: 1 GB
    python benchmarks/bench_families.py --latents 16384           # 4.5 GB; time grows with the square

Shapes of white noise, each in 16 random poses, learned at a cosine of 0.89. The floor is the products' multiplications
alone, Σ d³ · D for each pair, at the rate of one such product here; processor seconds count all threads.
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

import groupcc
from groupcc.analysis import find_families, find_neighbours
from groupcc.groups import Group
from groupcc.ops._cpp.products import bmm

COPIES = 16


def dictionary(group: Group, latents: int, width: int) -> torch.Tensor:
    """[latents, G, width]: each shape in COPIES poses, with noise of half its norm."""
    generator = torch.Generator().manual_seed(0)
    W_LGD = torch.randn(latents, group.order, width, generator=generator).mul_(0.5)
    translation = torch.tensor(group.right_translation)
    for start in range(0, latents, COPIES):
        shape = torch.randn(group.order, width, generator=generator)
        poses = torch.randint(group.order, (min(COPIES, latents - start),), generator=generator)
        for latent, pose in enumerate(poses.tolist(), start):
            W_LGD[latent] += shape[translation[pose]]
    return W_LGD


def seconds_a_multiplication(inner: int) -> float:
    """Of the products that the analysis is made of, [512, inner] by [inner, 512]."""
    a, out = torch.randn(1, 512, inner), torch.empty(1, 512, 512)
    times = []
    for _ in range(9):
        start = time.process_time()
        bmm(a, a.mT, out)
        times.append(time.process_time() - start)
    return min(times) / (512 * 512 * inner)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", default="D32")
    parser.add_argument("--width", type=int, default=480, help="D")
    parser.add_argument("--latents", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    group = groupcc.group(args.group)
    W_LGD = dictionary(group, args.latents, args.width)
    pairs = args.latents * (args.latents - 1) / 2
    multiplications = pairs * args.width * sum(irrep.dim**3 for irrep in group.irreps())
    floor = multiplications * seconds_a_multiplication(2 * args.width)
    print(f"{args.latents} latents of {group.name}, D = {args.width}: {multiplications:.2g} multiplications")
    print("| step | wall, s | processor, s | floor, s | peak memory, GB |\n| --- | --- | --- | --- | --- |")
    for name, step in (("every pair", find_neighbours), ("families, pairs and all", find_families)):
        wall, processor = time.perf_counter(), time.process_time()
        step(W_LGD, group)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(f"| {name} | {wall:.3g} | {processor:.3g} | {floor:.3g} | {peak:.3g} |", flush=True)


if __name__ == "__main__":
    main()
