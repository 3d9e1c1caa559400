"""bench: what the ops take here, every backend beside the reference and its peers in one run."""

from __future__ import annotations

import contextlib
import gc
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from groupcc import ops
from groupcc.bench import output
from groupcc.bench.cases import Case, screening
from groupcc.bench.output import Row
from groupcc.bench.peers import NotInstalled
from groupcc.bench.suites import SCALES, suite
from groupcc.bench.timing import Rates, interleaved, measure_rates, warm_allocator
from groupcc.errors import BackendError, GroupccError, argument_error

__all__ = ["SCALES", "compare", "run_bench"]

_BACKENDS = {"cpu": ("reference", "cpp"), "cuda": ("reference", "triton")}


def run_bench(
    *,
    repeats: int,
    scale: str,
    only: Sequence[str] = (),
    with_peers: bool = True,
    warm: bool = True,
    out: Path | None = None,
) -> list[Row]:
    """Times the cases of `scale` (of the ops `only`, where any are named), prints a line for each comparison as it
    comes, and writes bench.csv, bench.md and bench.svg to `out`.

    Every side's result is checked before any is timed. A case that fails costs its own rows alone: the others are
    still timed and written, then GroupccError names it. `warm`: outputs go to warm memory on all sides (see
    `timing.warm_allocator`).
    """
    if repeats < 1:
        raise argument_error("repeats", expected="at least 1", got=repeats, remedy="7 is the default.")
    if scale == "gpu" and not torch.cuda.is_available():
        raise argument_error("--scale", expected="a CUDA GPU for gpu", got="none here", remedy="small and goals run.")
    for op in only:
        if op not in ops.registered_ops():
            raise argument_error(
                "--only", expected="names of ops", got=op, remedy=f"There are {', '.join(ops.registered_ops())}."
            )
    device = torch.device("cuda" if scale == "gpu" else "cpu")
    dtypes = [torch.bfloat16] if scale == "gpu" else [torch.float32, *([torch.bfloat16] if screening() else [])]
    rows: list[Row] = []
    failed: list[str] = []
    missing: dict[str, None] = {}  # in order, each once
    with warm_allocator() if warm else contextlib.nullcontext(False) as warmed:
        rates = measure_rates(dtypes, device)
        machine = output.machine(device, rates, warmed=warmed, repeats=repeats)
        print("\n".join(machine), "", output.header(), sep="\n", flush=True)
        for op, build in suite(scale):
            if only and op not in only:
                continue
            options = {"repeats": repeats, "device": device, "rates": rates, "peers": with_peers, "missing": missing}
            for row in _attempt(op, build, failed, **options):
                print(output.line(row), flush=True)
                rows.append(row)
            gc.collect()
    notes = [*(f"left out: {name}" for name in missing), *(f"failed: {reason}" for reason in failed)]
    print("".join(f"{note}\n" for note in notes), end="")
    if out is not None:
        output.write(out, rows, [*machine, *notes])
        print(f"\nbench.csv, bench.md and bench.svg are in {out}")
    if failed:
        raise GroupccError(f"{len(failed)} cases failed, the others are timed: {'; '.join(failed)}")
    return rows


def _attempt(op: str, build: Callable[[], Case], failed: list[str], **options: Any) -> Iterator[Row]:
    """The rows of a case as they come; what it raises in their place is added to `failed`, with the case's name."""
    name = op
    try:
        with ops.use_backend("auto"):  # which GROUPCC_BACKEND leaves to each side
            case = build()
        name = f"{op}, {case.variant}"
        yield from compare(case, **options)
    except Exception as error:  # a peer may raise anything, and the other cases are minutes of work
        failed.append(f"{name}: {error if isinstance(error, GroupccError) else repr(error)}")


def compare(
    case: Case, *, repeats: int, device: torch.device, rates: Rates, peers: bool, missing: dict[str, None]
) -> Iterator[Row]:
    """The rows of one case: each compiled backend against the reference and each peer, or the reference against them.

    What is not installed, or has no kernel here, is added to `missing`.
    """
    sides: dict[str, Callable[[], Any]] = {}
    expected = None
    for backend in _BACKENDS[device.type]:
        try:
            with ops.use_backend(backend):
                call: Callable[[], Any] = partial(_with_backend, backend, case.build())
                result = call()
        except BackendError as error:
            missing[str(error)] = None
            continue
        expected = result if expected is None else expected
        if not case.agrees(result, expected):
            raise GroupccError(f"{backend} differs from the reference. Nothing was timed.")
        sides[backend] = call
    ours = list(sides)
    goals: dict[str, float | None] = {"reference": None}
    for name, peer in case.peers.items() if peers else ():
        try:
            with ops.use_backend("auto"):
                call = partial(_with_backend, "auto", peer.build())
        except NotInstalled as error:
            missing[str(error)] = None
            continue
        if not peer.agrees(call(), expected):
            raise GroupccError(f"{name} differs from the reference. Nothing was timed.")
        sides[name], goals[name] = call, peer.goal
    del expected, result
    times = {name: statistics.median(values) for name, values in interleaved(sides, repeats, device).items()}
    floor = rates.floor(case.nbytes, case.flops, case.flops_dtype or case.dtype)
    compiled = [backend for backend in ours if backend != "reference"]
    for backend in compiled or ours:
        for against, goal in goals.items():
            if against != backend or len(goals) == 1:
                dtype = str(case.dtype).removeprefix("torch.")
                of, than = times[backend], times[against]
                yield Row(case.op, case.variant, dtype, backend, 1e3 * of, against, 1e3 * than, goal, 1e3 * floor)


def _with_backend(backend: str, call: Callable[[], Any]) -> Any:
    with ops.use_backend(backend):
        return call()
