"""The demo end to end, on the compiled kernels and on the reference path: `python benchmarks/bench_demo.py`.

Each backend runs `groupcc demo` in a process of its own; all are run once, in turns of `--repeats`. Prints the seconds
of each stage (medians), and whether the atlases have the same families.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BACKENDS = ("auto", "reference")


def demo(backend: str, steps: int | None, out: Path) -> tuple[dict[str, float], list[tuple[str, ...]]]:
    """Seconds by stage and in all, and each latent's family and stabilizer."""
    command = [sys.executable, "-m", "groupcc", "demo", "--out", str(out)]
    command += [] if steps is None else ["--steps", str(steps)]
    started = time.monotonic()
    done = subprocess.run(
        command, env={**os.environ, "GROUPCC_BACKEND": backend}, stdout=subprocess.PIPE, text=True, check=True
    )
    seconds = {name: float(value) for name, value in re.findall(r"^   (\w[^:\n]*): ([0-9.]+) s$", done.stdout, re.M)}
    seconds["all of it"] = time.monotonic() - started
    with open(out / "atlas" / "table.csv", encoding="utf-8") as file:
        return seconds, [(row["family"], row["stabilizer"]) for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--steps", type=int, default=None, help="training steps (default: the demo's own)")
    args = parser.parse_args()
    times: dict[str, list[dict[str, float]]] = {backend: [] for backend in BACKENDS}
    families = {}
    for _ in range(args.repeats):
        for backend in BACKENDS:
            with tempfile.TemporaryDirectory() as folder:
                seconds, families[backend] = demo(backend, args.steps, Path(folder) / "demo")
            times[backend].append(seconds)
    print(f"{'stage':50}{'auto, s':>14}{'reference, s':>14}{'times as fast':>16}")
    for stage in times["auto"][0]:
        auto, reference = (statistics.median(run[stage] for run in times[backend]) for backend in BACKENDS)
        print(f"{stage:50}{auto:14.1f}{reference:14.1f}{reference / max(auto, 1e-9):16.2f}")
    same = sum(a == b for a, b in zip(*families.values(), strict=True))
    print(f"{same} of {len(families['auto'])} latents have the same family and stabilizer")


if __name__ == "__main__":
    main()
