"""A whole training step of a pose-tied crosscoder beside untied ones of the same number of atoms.

    python benchmarks/bench_tied_step.py                          # D32, D = 480, 64 base latents, k = 32, N = 512
    python benchmarks/bench_tied_step.py --base-latents 256       # 16384 atoms: 20 GB of memory
    python benchmarks/bench_tied_step.py --sides tied alike       # leaves the plain untied one out

Every side is `groupcc.train` itself with the "orbit" encoder, stopped at the start of each step, in a process of its
own: in one, each would find the caches and the kept memory of the others. All take turns, on the same batches of
planted orbits and with the same settings.

- tied: `tied=True`.
- alike: its `untie()`, an ordinary crosscoder with the same outputs at the start, which selects poses in the same way.
- untied: the same latents chosen each for itself (`pose=None`), so that its encoder may screen them.
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import statistics
import time
from multiprocessing.connection import Connection

import torch
from bench_step import OurSide, data

import groupcc
from groupcc.bench import output
from groupcc.bench.timing import measure_rates

SIDES = ("tied", "alike", "untied")


def crosscoder(args: argparse.Namespace, side: str) -> groupcc.GroupCrosscoder:
    """The side's; its atoms are the same on every side."""
    config = groupcc.CrosscoderConfig(
        group=args.group, d_in=args.width, n_latents=args.base_latents, k=args.k, encoder="orbit", tied=True,
        pose=args.pose,
    )  # fmt: skip
    tied = groupcc.GroupCrosscoder(config, seed=0)
    if side == "tied":
        return tied
    alike = tied.untie()
    if side == "untied":
        alike.config = dataclasses.replace(alike.config, pose=None)
    return alike


def serve(args: argparse.Namespace, name: str, end: Connection) -> None:
    """One side in its process: says when it is ready, then how many ms each step took, and at None its FVUs."""
    torch.set_num_threads(args.threads)
    side = OurSide(args, data(args), "auto", crosscoder(args, name))
    end.send(None)
    while (i := end.recv()) is not None:
        start = time.perf_counter()
        side.step(i)
        end.send(1e3 * (time.perf_counter() - start))
    end.send(side.curve())


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=9, help="the first two warm up and are not timed")
    parser.add_argument("--group", default="D32")
    parser.add_argument("--width", type=int, default=480, help="D")
    parser.add_argument("--base-latents", type=int, default=64)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--pose", choices=["max", "nms"], default="max")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    args = parser.parse_args(argv)
    args.device = "cpu"
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    cpu = torch.device("cpu")
    about = output.machine(cpu, measure_rates([torch.float32], cpu), warmed=False, repeats=max(args.steps - 2, 1))
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Connection] = {}
    for name in args.sides:
        ends[name], theirs = context.Pipe()
        context.Process(target=serve, args=(args, name, theirs), daemon=True).start()
        theirs.close()
        ends[name].recv()
    times: dict[str, list[float]] = {name: [] for name in ends}
    for i in range(args.steps):
        for name, end in ends.items():
            time.sleep(0.05)  # until the other side's threads have stopped waiting for work
            end.send(i)
            times[name].append(end.recv())
    curves: dict[str, list[float]] = {}
    for name, end in ends.items():
        end.send(None)
        curves[name] = end.recv()
    atoms = args.base_latents * groupcc.group(args.group).order
    print("\n".join(about))
    print(f"{args.group}, {atoms} atoms, D = {args.width}, k = {args.k}, N = {args.batch}, pose {args.pose}, float32\n")
    print("| training step | ms | times the tied step's | FVU at the end |\n|---|---|---|---|")
    medians = {name: statistics.median(values[2:] or values) for name, values in times.items()}
    for name, ms in medians.items():
        ratio = f"{ms / medians['tied']:.1f}" if "tied" in medians else ""
        print(f"| {name} | {ms:.1f} | {ratio} | {curves[name][args.steps - 1]:.4f} |")


if __name__ == "__main__":
    main()
