"""The demo end to end, on the compiled kernels and on the reference path: `python benchmarks/bench_demo.py`.

Each backend runs `groupcc demo` in a process of its own, in turns of `--repeats`; prints the seconds of each stage
(medians). Then whether results agree, in two ways:

- One crosscoder, that of the auto run, analysed by both backends: families, poses and stabilizers must be equal (exit
  status 1 where they are not).
- The runs' own dictionaries. Training is chaotic: a last bit that differs grows, and no two ways to round end at the
  same weights. So figures that don't depend on how latents are numbered stand beside those of reference runs that
  differ only in PyTorch's vector instructions (what rounding does) or only in the seed (what chance does).
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

import groupcc
from groupcc.analysis import Atlas
from groupcc.harvesting import OrbitStore

ALIKE = 0.9
"""The cosine from which on two latents count as one."""


@dataclass(frozen=True)
class Run:
    """How one demo is run."""

    name: str
    backend: str
    seed: int = 0
    capability: str | None = None


AUTO, REFERENCE = Run("auto", "auto"), Run("reference", "reference")
OTHERS = (
    Run("reference, no vectors", "reference", capability="default"),
    Run("reference, another seed", "reference", seed=1),
)


@dataclass(frozen=True)
class Likeness:
    """How much of run A's dictionary is in run B's; shares are of A's live latents."""

    same_place: float
    translates: float
    same_stabilizer: float

    def __str__(self) -> str:
        return f"{self.same_place:11.1%}{self.translates:12.1%}{self.same_stabilizer:17.1%}"


def demo(run: Run, steps: int | None, out: Path) -> dict[str, float]:
    """Seconds by stage and in all."""
    command = [sys.executable, "-m", "groupcc", "demo", "--out", str(out), "--seed", str(run.seed)]
    command += [] if steps is None else ["--steps", str(steps)]
    environment = {**os.environ, "GROUPCC_BACKEND": run.backend}
    if run.capability is not None:
        environment["ATEN_CPU_CAPABILITY"] = run.capability
    started = time.monotonic()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds = {name: float(value) for name, value in re.findall(r"^   (\w[^:\n]*): ([0-9.]+) s$", done.stdout, re.M)}
    return seconds | {"all of it": time.monotonic() - started}


def dictionary(out: Path) -> tuple[torch.Tensor, Atlas]:
    """What the demo in `out` learned: W_dec [L, G, D] and its analysis."""
    crosscoder = groupcc.GroupCrosscoder.from_pretrained(out / "crosscoder" / "crosscoder")
    return crosscoder.W_dec.detach(), Atlas.load(out / "atlas")


def likeness(a: tuple[torch.Tensor, Atlas], b: tuple[torch.Tensor, Atlas]) -> Likeness:
    """Of A's live latents: those that are B's latent of the same index, those that are a translate R_h d of any of
    B's live latents, and those whose nearest such translate has the same stabilizer too."""
    (W_a, atlas_a), (W_b, atlas_b) = a, b
    unit_a, unit_b = (F.normalize(W.flatten(1), dim=1).view_as(W) for W in (W_a, W_b))
    live_a, live_b = (~atlas.dead for atlas in (atlas_a, atlas_b))
    nearest, of = unit_a.new_full((len(W_a),), -1.0), torch.zeros(len(W_a), dtype=torch.int64)
    for index in torch.from_numpy(atlas_a.group.right_translation.copy()):
        cosines = unit_a.flatten(1) @ unit_b[:, index].flatten(1).T
        best = cosines.masked_fill(~live_b, -1.0).max(dim=1)
        of = torch.where(best.values > nearest, best.indices, of)
        nearest = torch.maximum(nearest, best.values)
    same_place = ((unit_a * unit_b).sum((1, 2)) > ALIKE) & live_b
    found = nearest > ALIKE
    names_a, names_b = ([stabilizer.name for stabilizer in atlas.stabilizers] for atlas in (atlas_a, atlas_b))
    same_name = torch.tensor([name == names_b[j] for name, j in zip(names_a, of.tolist(), strict=True)])
    shares = (float(hit[live_a].double().mean()) for hit in (same_place, found, found & same_name))
    return Likeness(*shares)


def families(atlas: Atlas) -> str:
    """How many families of two or more latents there are, and how many latents are in one."""
    sizes = [size for size in atlas.families.sizes if size > 1]
    live = int((~atlas.dead).sum())
    return f"{len(sizes)} families with {sum(sizes)} latents, of {live} live"


def analysed_alike(out: Path) -> bool:
    """Whether both backends read the same families, poses and stabilizers off the crosscoder in `out`."""
    crosscoder = groupcc.GroupCrosscoder.from_pretrained(out / "crosscoder" / "crosscoder")
    atlases = []
    for run in (AUTO, REFERENCE):
        with groupcc.use_backend(run.backend):
            atlases.append(groupcc.analyze(crosscoder, OrbitStore.open(out / "orbits")))
    a, b = atlases
    families_alike = torch.equal(a.families.labels, b.families.labels) and torch.equal(
        a.families.poses, b.families.poses
    )
    return families_alike and all(
        one.name == other.name and bool((one.mask == other.mask).all())
        for one, other in zip(a.stabilizers, b.stabilizers, strict=True)
    )


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None, help="training steps (default: the demo's own)")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="leave the runs in this new directory")
    args = parser.parse_args(argv)
    if args.keep is not None and args.keep.exists():
        parser.error(f"--keep: expected a new directory; got {args.keep}, which exists. Finished runs take no time.")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    with tempfile.TemporaryDirectory() as scratch:
        return compare(args, args.keep or Path(scratch))


def compare(args: argparse.Namespace, folder: Path) -> int:
    times: dict[str, list[dict[str, float]]] = {run.name: [] for run in (AUTO, REFERENCE)}
    for i in range(args.repeats):
        for run in (AUTO, REFERENCE):
            times[run.name].append(demo(run, args.steps, folder / f"{run.name} {i}"))
    print(f"{'stage':50}{'auto, s':>14}{'reference, s':>14}{'times as fast':>16}")
    for stage in times["auto"][0]:
        auto, reference = (
            statistics.median(seconds[stage] for seconds in times[run.name]) for run in (AUTO, REFERENCE)
        )
        print(f"{stage:50}{auto:14.1f}{reference:14.1f}{reference / max(auto, 1e-9):16.2f}", flush=True)
    alike = analysed_alike(folder / "auto 0")
    print(f"\nthe auto run's crosscoder, analysed by both backends: {'equal' if alike else 'NOT EQUAL'}", flush=True)
    standard = dictionary(folder / "reference 0")
    print(f"\n{'latents of … in the reference run':38}{'same place':>11}{'translates':>12}{'and stabilizer':>17}")
    lines = [f"reference: {families(standard[1])}"]
    for run in (AUTO, *OTHERS):
        out = folder / f"{run.name} 0"
        if run in OTHERS:
            demo(run, args.steps, out)
        learned = dictionary(out)
        print(f"{run.name:38}{likeness(learned, standard)}", flush=True)
        lines.append(f"{run.name}: {families(learned[1])}")
    print("", *lines, sep="\n")
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
