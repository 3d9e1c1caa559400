"""bench: the ops' times here, every backend against the reference in the same run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from groupcc import ops
from groupcc.errors import argument_error
from groupcc.groups import group

__all__ = ["SCALES", "Case", "cases", "run_bench"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {"group": "D16", "d_in": 80, "n_latents": 512, "k": 8, "n": 1024, "side": 32, "positions": 256},
    "paper": {"group": "D32", "d_in": 480, "n_latents": 4096, "k": 32, "n": 256, "side": 28, "positions": 144},
}
"""Tensor sizes: the demo's, and those of InceptionV1's mixed3b under D32."""


class Case(NamedTuple):
    """An op on given tensors; `floor_bytes`: what must be read and written at least, each byte once."""

    name: str
    run: Callable[[], object]
    floor_bytes: int


def cases(scale: str) -> list[Case]:
    """Every op at one of `SCALES`, on seeded random tensors, forward and, where it trains, backward."""
    s = SCALES[scale]
    G = group(s["group"]).order
    D, L, k, n, side, P = (s[name] for name in ("d_in", "n_latents", "k", "n", "side", "positions"))
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(1, G, side, side, D, generator=generator)
    points = torch.rand(G, P, 2, generator=generator) * (side - 3) + 1
    pre = torch.randn(n, L, generator=generator)
    acts, indices = ops.topk(pre, k)
    W_dec = torch.randn(L, G, D, generator=generator) / (G * D) ** 0.5
    leaf_acts, leaf_W = acts.clone().requires_grad_(), W_dec.clone().requires_grad_()

    def train_decode() -> None:
        leaf_acts.grad = leaf_W.grad = None
        ops.sparse_decode(leaf_acts, indices, leaf_W).square().mean().backward()

    fp = 4
    out_bytes = n * G * D * fp
    return [
        Case("orbit_gather bilinear", lambda: ops.orbit_gather(maps, points), (maps.numel() + P * G * D) * fp),
        Case(
            "orbit_gather bspline", lambda: ops.orbit_gather(maps, points, "bspline"), (maps.numel() + P * G * D) * fp
        ),
        Case("topk", lambda: ops.topk(pre, k), pre.numel() * fp + n * k * 12),
        Case("batchtopk", lambda: ops.batchtopk(pre, k), 2 * pre.numel() * fp),
        Case("sparse_decode", lambda: ops.sparse_decode(acts, indices, W_dec), W_dec.numel() * fp + out_bytes),
        Case("sparse_decode + backward", train_decode, 3 * W_dec.numel() * fp + 3 * out_bytes),
    ]


def run_bench(*, repeats: int, scale: str) -> None:
    """Prints the table: medians over `repeats` rounds, the backends of an op taking turns within each."""
    if repeats < 1:
        raise argument_error("repeats", expected="at least 1", got=repeats, remedy="7 is the default.")
    print(f"{SCALES[scale]}, {torch.get_num_threads()} threads, medians of {repeats}")
    print(f"{'op':26} {'backend':10} {'ms':>10} {'of reference':>13} {'GB/s of floor':>14}")
    registered = ops.registered_ops()
    for case in cases(scale):
        op = registered[case.name.split()[0]]
        times: dict[str, list[float]] = {
            backend: [] for backend in op.backends if backend == "reference" or not isinstance(op.load(backend), str)
        }
        for round_ in range(repeats + 1):
            for backend in times:
                with ops.use_backend(backend):
                    start = time.perf_counter()
                    case.run()
                    elapsed = time.perf_counter() - start
                if round_:  # the first warms up
                    times[backend].append(elapsed)
        medians = {backend: statistics.median(values) for backend, values in times.items()}
        for backend, seconds in medians.items():
            ratio = seconds / medians["reference"]
            rate = case.floor_bytes / seconds / 1e9
            print(f"{case.name:26} {backend:10} {1e3 * seconds:10.3f} {ratio:13.2f} {rate:14.2f}", flush=True)
