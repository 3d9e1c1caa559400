"""Which cases are timed: the demo's sizes, the sizes that the goals in benchmarks/README.md are stated at, a GPU's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch

from groupcc.bench import cases, tied_cases
from groupcc.bench.cases import Case, Goals
from groupcc.groups import Group, group

__all__ = ["SCALES", "suite"]

SCALES = ("small", "goals", "gpu")
"""`small`: the demo's sizes, every op. `goals`: those of benchmarks/README.md. `gpu`: bf16 on CUDA."""

Builders = Iterator[tuple[str, Callable[[], Case]]]
On = tuple[str, torch.dtype]
CPU = ("cpu", torch.float32)


def suite(scale: str) -> Builders:
    """Op and builder of each case; its tensors are made when the builder is called, so that only one case's exist."""
    return {"small": _small, "goals": _goals, "gpu": _gpu}[scale]()


def _small() -> Builders:
    N, L, k, G, D = 1024, 512, 8, 32, 80
    pre, points = partial(_randn, N, L), _anywhere(G, 256, 32)
    selection = f"{N}×{L}, k = {k}"
    others: Goals = dict.fromkeys(("torch.topk", "onnxruntime TopK", "faiss heap"))
    yield "topk", partial(_select, cases.topk, selection, pre, k, others)
    yield "batchtopk", partial(_select, cases.batchtopk, selection, pre, k, {"torch.topk, flat": None})
    for how, others in (("bilinear", {"grid_sample + permute": None}), ("bspline", {})):
        yield "orbit_gather", partial(_gather, points, 32, D, how, "channels last", others)
    yield "orbit_encode", partial(_gather_encode, points, 32, D, L)
    yield "encode_topk", partial(_encode, N, G * D, L, k, {"GEMM alone": None})
    yield "sparse_decode", partial(_decode, cases.decode, L, G, D, N, k, {"F.embedding_bag": None, "dense GEMM": None})
    yield "sparse_decode", partial(_decode, cases.decode_backward, L, G, D, N, k, {"dense autograd": None})
    yield "decode_loss", partial(_decode, cases.decode_loss, L, G, D, N, k, {})
    yield from _tied("D16", L // G, D, N, k)
    yield "orbit_correlate", partial(_orbit_correlate, "D16", points, 32, L // G, D)


def _goals() -> Builders:
    N, L = 2048, 16384
    select = partial(partial, _select, cases.topk)
    against = {"torch.topk": 15, "onnxruntime TopK": 6, "faiss heap": 6, "x.sum()": 0.25}
    yield "topk", select(f"{N}×{L}, k = 64", partial(_randn, N, L), 64, against)
    yield "topk", select("2048×4096, k = 32", partial(_randn, 2048, 4096), 32, {"torch.topk": 8})
    yield "topk", select("512×65536, k = 64", partial(_randn, 512, 65536), 64, {"torch.topk": 10})
    for name, make in _HARD.items():
        yield "topk", select(f"{N}×{L}, k = 64, {name}", partial(make, N, L), 64, {"torch.topk": 1})
    flat = {"torch.topk, flat": 40.0}
    yield "batchtopk", partial(_select, cases.batchtopk, f"{N}×{L}, k = 64", partial(_randn, N, L), 64, flat)
    for side, goal in ((14, 6.0), (28, 10.0)):
        points = cases.orbit_points("D32", side)
        for layout in ("channels last", "channels first"):
            yield (
                "orbit_gather",
                partial(_gather, points, side, 480, "bilinear", layout, {"grid_sample + permute": goal}),
            )
    yield "orbit_encode", partial(_gather_encode, cases.orbit_points("D32", 14), 14, 480, 4096)
    yield "encode_topk", partial(_encode, 512, 2048, 8192, 32, {"GEMM alone": None})
    for shape, dense, dense_backward in (((4096, 64, 480, 256, 32), 8, 8), ((16384, 16, 480, 512, 32), 17, 14)):
        forward = {"F.embedding_bag": 2.0, "dense GEMM": dense}
        backward = {"dense autograd": dense_backward, "sparsify backward": 4.0}
        yield "sparse_decode", partial(_decode, cases.decode, *shape, forward)
        yield "sparse_decode", partial(_decode, cases.decode_backward, *shape, backward)
        yield "decode_loss", partial(_decode, cases.decode_loss, *shape, {})
    for base, goal in ((64, 15.0), (256, 25.0)):
        yield from _tied("D32", base, 480, 512, 32, goal)
    yield "orbit_correlate", partial(_orbit_correlate, "D32", cases.orbit_points("D32", 14), 14, 64, 480)


def _gpu(on: On = ("cuda", torch.bfloat16), shrink: int = 1) -> Builders:
    # `shrink` divides the sizes: without a GPU, the cases can be built and checked small.
    N, M, L, k = 8192 // shrink, 2048 // shrink, 16384 // shrink, 64
    pre, selection = partial(_randn, N, L, on=on), f"{N}×{L}, k = {k}"
    yield "topk", partial(_select, cases.topk, selection, pre, k, {"torch.topk": 5})
    yield "batchtopk", partial(_select, cases.batchtopk, selection, pre, k, {"torch.topk, flat": None})
    yield "encode_topk", partial(_encode, N, M, L, k, {"GEMM alone": 1 / 1.05}, on=on)
    D = 480 // shrink
    for side in (14, 28):
        points = cases.orbit_points("D32", side).to(on[0])
        against = {"grid_sample + permute": None}
        yield "orbit_gather", partial(_gather, points, side, D, "bilinear", "channels last", against, on=on)
    yield "orbit_encode", partial(_gather_encode, cases.orbit_points("D32", 28).to(on[0]), 28, D, L, on=on)
    shape, forward = (L, 64, D, 2048 // shrink, 32), {"sparsify decode": 10, "dense GEMM": 1}
    yield "sparse_decode", partial(_decode, cases.decode, *shape, forward, on=on)
    backward = {"sparsify backward": 1, "dense autograd": 1}
    yield "sparse_decode", partial(_decode, cases.decode_backward, *shape, backward, on=on)
    yield "decode_loss", partial(_decode, cases.decode_loss, *shape, {}, on=on)
    yield from _tied("D32", 256 // shrink, D, N, min(k, 256 // shrink), on=on)
    points = cases.orbit_points("D32", 28).to(on[0])
    yield "orbit_correlate", partial(_orbit_correlate, "D32", points, 28, 256 // shrink, D, on=on)


def _tied(name: str, L: int, D: int, N: int, k: int, goal: float | None = None, on: On = CPU) -> Builders:
    """The ops of a pose-tied crosscoder; `goal` is that of group_correlate."""
    every: tuple[tuple[str, Callable[..., Case], Goals], ...] = (
        ("group_correlate", tied_cases.group_correlate, {"expanded GEMM": goal}),
        ("group_correlate_max", tied_cases.group_correlate_max, {"group_correlate, max": None}),
        ("group_decode_loss", partial(tied_cases.group_decode_loss, k=k), {}),
        ("group_encode_at", partial(tied_cases.group_encode_at, k=k), {"group_correlate": None}),
        ("pose_maxima", partial(tied_cases.pose_maxima, k=k), {}),
    )
    for op, case, goals in every:
        yield op, partial(_correlate, case, name, L, D, N, goals, on=on)


def _randn(*shape: int, on: On = CPU) -> torch.Tensor:
    # Drawn on the CPU, so that a GPU gets the same numbers.
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(*on)


_HARD: dict[str, Callable[[int, int], torch.Tensor]] = {
    "ReLU, 100 a row positive": lambda N, L: (_randn(N, L) - 2.5).relu_(),
    "ReLU, 22 a row positive": lambda N, L: (_randn(N, L) - 3).relu_(),
    "sorted rising": lambda N, L: _randn(N, L).sort(dim=1).values,
    "sorted falling": lambda N, L: _randn(N, L).sort(dim=1, descending=True).values,
    "all equal": lambda N, L: torch.ones(N, L),
    "all negative": lambda N, L: -_randn(N, L).abs_() - 1,
}


def _select(
    case: Callable[[str, torch.Tensor, int, Goals], Case],
    variant: str,
    pre: Callable[[], torch.Tensor],
    k: int,
    goals: Goals,
) -> Case:
    return case(variant, pre(), k, goals)


def _encode(N: int, M: int, L: int, k: int, goals: Goals, on: On = CPU) -> Case:
    # W_enc latent-major in memory, as training keeps it.
    W_enc = (_randn(L, M, on=on) / M**0.5).t()
    return cases.encode(f"{N}×{M}×{L}, k = {k}", _randn(N, M, on=on), W_enc, k, goals)


def _gather(points: torch.Tensor, side: int, D: int, how: str, layout: str, goals: Goals, on: On = CPU) -> Case:
    G, P, _ = points.shape
    if layout == "channels last":  # as the op takes them
        maps = _randn(1, G, side, side, D, on=on)
    else:  # as a convolution gives them
        maps = _randn(1, G, D, side, side, on=on).permute(0, 1, 3, 4, 2)
    return cases.gather(f"{how}, G = {G}, D = {D}, {side}², P = {P}, {layout}", maps, points, how, goals)


def _gather_encode(points: torch.Tensor, side: int, D: int, L: int, on: On = CPU) -> Case:
    G, P, _ = points.shape
    maps = _randn(1, G, side, side, D, on=on)
    return cases.gather_encode(f"G = {G}, D = {D}, {side}², P = {P}, L = {L}", maps, points, L)


def _orbit_correlate(name: str, points: torch.Tensor, side: int, L: int, D: int, on: On = CPU) -> Case:
    G, P, _ = points.shape
    maps, W = _randn(1, G, side, side, D, on=on), _randn(L, G, D, on=on) / (G * D) ** 0.5
    variant, goals = f"{name}, D = {D}, {side}², P = {P}, {L} base latents", {"orbit_gather, group_correlate": None}
    return tied_cases.orbit_correlate(variant, maps, points, W, group(name), goals)


def _correlate(
    case: Callable[[str, torch.Tensor, torch.Tensor, Group, Goals], Case],
    name: str,
    L: int,
    D: int,
    N: int,
    goals: Goals,
    on: On,
) -> Case:
    G = group(name)
    acts, W = _randn(N, G.order, D, on=on), _randn(L, G.order, D, on=on) / (G.order * D) ** 0.5
    return case(f"{name}, N = {N}, D = {D}, {L} base latents", acts, W, G, goals)


def _decode(
    case: Callable[[str, torch.Tensor, torch.Tensor, torch.Tensor, Goals], Case],
    L: int,
    G: int,
    D: int,
    N: int,
    k: int,
    goals: Goals,
    on: On = CPU,
) -> Case:
    # Every latent is equally likely.
    acts, indices = torch.rand(N, L, generator=torch.Generator().manual_seed(4)).topk(k, dim=1)
    W_dec = _randn(L, G, D, on=on) / (G * D) ** 0.5
    variant = f"L = {L}, G·D = {G * D}, N = {N}, k = {k}"
    return case(variant, acts.to(W_dec), indices.to(W_dec.device), W_dec, goals)


def _anywhere(G: int, P: int, side: int) -> torch.Tensor:
    return torch.rand(G, P, 2, generator=torch.Generator().manual_seed(3)) * (side - 3) + 1
