"""Fair timing: sides take turns inside each round, on warm memory; and what this machine can do at best."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

__all__ = ["Rates", "interleaved", "measure_rates", "seconds", "synchronize", "warm_allocator"]

_TURN = 0.004  # a turn repeats its call up to about so many seconds, so that the clock's grain doesn't matter
_REST = 0.003  # between turns: other libraries' threads stop waiting busily for their next task within this


def synchronize(device: torch.device) -> None:
    """Waits until `device` has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], times: int, device: torch.device) -> float:
    """Seconds of one call: the mean over `times` calls in a row."""
    synchronize(device)
    start = time.perf_counter()
    for _ in range(times):
        call()
    synchronize(device)
    return (time.perf_counter() - start) / times


def interleaved(
    sides: Mapping[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of every side in each of `repeats` rounds, after a round that warms up and isn't counted.

    Within a round each side has one turn, and who begins moves on by one, so that no side always follows the same.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    calls = {name: max(1, min(1000, int(_TURN / max(seconds(sides[name], 1, device), 1e-9)))) for name in names}
    enabled = gc.isenabled()
    gc.disable()
    try:
        for round_ in range(repeats):
            first = round_ % len(names)
            for name in names[first:] + names[:first]:
                time.sleep(_REST)
                times[name].append(seconds(sides[name], calls[name], device))
    finally:
        if enabled:
            gc.enable()
    return times


@contextlib.contextmanager
def warm_allocator() -> Iterator[bool]:
    """Within it, glibc keeps freed memory instead of returning it, so that every side writes to warm pages.

    As it comes, each large result is fresh memory, and the fault of each page costs several times what writing it
    does; that would be timed in place of the op. Yields whether this machine's allocator can be told (glibc can).
    """
    try:
        libc = ctypes.CDLL("libc.so.6") if sys.platform == "linux" else None
        mallopt = libc.mallopt if libc is not None else None
    except (OSError, AttributeError):
        mallopt = None
    if mallopt is None:
        yield False
        return
    trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD, M_MMAP_MAX of malloc.h
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield True
    finally:
        mallopt(mmap_max, 65536)  # glibc's own values
        mallopt(trim_threshold, 128 * 1024)
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@dataclass(frozen=True)
class Rates:
    """What the machine does at best: bytes moved a second (read plus written) by a copy, FLOPs a second by a GEMM of
    each dtype."""

    copy: float
    gemm: Mapping[torch.dtype, float]

    def floor(self, nbytes: float, flops: float, dtype: torch.dtype) -> float:
        """Seconds that nothing can pass which moves so many bytes and does so many FLOPs in `dtype`."""
        return max(nbytes / self.copy, flops / self.gemm[dtype] if flops else 0.0)


def measure_rates(dtypes: Sequence[torch.dtype], device: torch.device) -> Rates:
    """Medians over a copy between warm buffers of 256 MiB and a square product in each dtype, on PyTorch's threads."""
    source = torch.zeros(1 << 26, device=device)
    target = torch.empty_like(source)
    copy = interleaved({"copy": lambda: target.copy_(source)}, 9, device)["copy"]
    n = 8192 if device.type == "cuda" else 2048
    gemm = {}
    for dtype in dtypes:
        a = torch.randn(n, n, device=device).to(dtype)
        product = partial(torch.mm, a, a, out=torch.empty_like(a))
        gemm[dtype] = 2 * n**3 / statistics.median(interleaved({"gemm": product}, 5, device)["gemm"])
    return Rates(2 * source.nbytes / statistics.median(copy), gemm)
