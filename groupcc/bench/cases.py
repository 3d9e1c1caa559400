"""An op on given tensors: how each side runs it, how results are checked, and the least that must be moved and done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from groupcc import ops
from groupcc.bench import peers
from groupcc.bench.timing import interleaved
from groupcc.groups import as_planar, group
from groupcc.ops.orbit_gather import sampling_taps

__all__ = [
    "Case",
    "Peer",
    "agree",
    "batchtopk",
    "chosen",
    "decode",
    "decode_backward",
    "decode_loss",
    "encode",
    "gather",
    "gather_encode",
    "orbit_points",
    "screening",
    "topk",
]

Call = Callable[[], Any]
Goals = Mapping[str, float | None]
"""The peers to compare with, each with its goal or None; a peer that is not in it is left out."""


@dataclass(frozen=True)
class Peer:
    """Another way to the same result.

    `build` returns the call to time, or raises `peers.NotInstalled`. `agrees(result, ours)`: whether it is right.
    `goal`: how many times as fast ours should be.
    """

    build: Callable[[], Call]
    agrees: Callable[[Any, Any], bool]
    goal: float | None = None


@dataclass(frozen=True)
class Case:
    """One line of the table and those it is compared with.

    `build` returns the call to time; both are made with a backend in force. `nbytes`: what must be read and written
    at least, each byte once; `flops`: additions and multiplications that cannot be left out, in `flops_dtype` (None:
    in `dtype`). `agrees(result, reference)`: whether a backend's result is right.
    """

    op: str
    variant: str
    dtype: torch.dtype
    build: Callable[[], Call]
    nbytes: float
    flops: float = 0.0
    peers: dict[str, Peer] = field(default_factory=dict)
    agrees: Callable[[Any, Any], bool] = field(default_factory=lambda: agree)
    flops_dtype: torch.dtype | None = None


def agree(result: Any, expected: Any, inputs: torch.dtype = torch.float64) -> bool:
    """Whether tensors (or tuples of them) are equal up to rounding: at most 1e-4 of the largest, and 3e-2 where they or
    the inputs that they are computed from are bf16 or fp16."""
    if isinstance(expected, (tuple, list)):
        return len(result) == len(expected) and all(agree(a, b, inputs) for a, b in zip(result, expected, strict=True))
    if result.shape != expected.shape:
        return False
    if not expected.is_floating_point():
        return bool(torch.equal(result, expected))
    if expected.numel() == 0:
        return True
    wide = expected.float()
    tolerance = 1e-4 if min(expected.dtype.itemsize, inputs.itemsize) >= 4 else 3e-2
    return float((result.float() - wide).abs().max()) <= tolerance * float(wide.abs().max()) + 1e-30


def chosen(
    goals: Goals, makers: Mapping[str, Callable[[], Call]], agrees: Callable[[Any, Any], bool]
) -> dict[str, Peer]:
    """Of `makers`, the peers that `goals` names."""
    return {name: Peer(make, agrees, goals[name]) for name, make in makers.items() if name in goals}


def topk(variant: str, pre_NL: torch.Tensor, k: int, goals: Goals) -> Case:
    """The k largest of each row with their indices; and beside it the bare sum of the same numbers."""

    def right(result: Any, ours: Any) -> bool:
        values, indices = result
        chosen = pre_NL.gather(1, indices.long())
        distinct = bool((indices.sort(dim=1).values.diff(dim=1) > 0).all())  # which of equals is the peer's own choice
        return distinct and torch.equal(chosen, values) and torch.equal(values.relu() + 0.0, ours[0])

    makers = {
        "torch.topk": partial(peers.torch_topk, pre_NL, k),
        "onnxruntime TopK": partial(peers.onnxruntime_topk, pre_NL, k),
        "faiss heap": partial(peers.faiss_heap, pre_NL, k),
    }
    others = chosen(goals, makers, right)
    others |= chosen(goals, {"x.sum()": lambda: pre_NL.sum}, lambda result, _: bool(result.isfinite()))
    N = len(pre_NL)
    nbytes = pre_NL.nbytes + N * k * (8 + pre_NL.itemsize)
    return Case("topk", variant, pre_NL.dtype, lambda: partial(ops.topk, pre_NL, k), nbytes, peers=others)


def batchtopk(variant: str, pre_NL: torch.Tensor, k: int, goals: Goals) -> Case:
    """The N·k largest of the batch, as sparse rows."""

    def right(result: Any, ours: Any) -> bool:
        values, mine = result[0].sort(descending=True).values, ours[0][ours[0] > 0].sort(descending=True).values
        return torch.equal(values[values > 0], mine) and torch.equal(values[-1].relu(), ours[2])

    N = len(pre_NL)
    return Case(
        "batchtopk",
        variant,
        pre_NL.dtype,
        lambda: partial(ops.batchtopk, pre_NL, k),
        pre_NL.nbytes + N * k * (8 + pre_NL.itemsize),
        peers=chosen(goals, {"torch.topk, flat": partial(peers.torch_batchtopk, pre_NL, k)}, right),
    )


def encode(variant: str, x_NM: torch.Tensor, W_enc_ML: torch.Tensor, k: int, goals: Goals) -> Case:
    """encode_topk, and beside it the bare product with W_enc in the faster of both memory orders.

    A kernel that screens does nearly all of the product in bfloat16 and passes the fp32 product, so the floor counts
    it in bfloat16 there.
    """
    (N, M), L = x_NM.shape, W_enc_ML.shape[1]
    b_enc = x_NM.new_zeros(L)

    def product() -> Call:
        out = x_NM.new_empty(N, L)
        orders = {"as given": W_enc_ML, "contiguous": W_enc_ML.contiguous()}
        calls = {name: partial(torch.addmm, b_enc, x_NM, W_enc, out=out) for name, W_enc in orders.items()}
        times = interleaved(calls, 3, x_NM.device)
        return calls[min(times, key=lambda name: min(times[name]))]

    def right(result: Any, ours: Any) -> bool:
        return agree(result.gather(1, ours[1]).relu(), ours[0])

    def like_reference(result: Any, expected: Any) -> bool:
        # Latents closer than rounding change places, so what stands at the indices counts, not which they are.
        (acts, indices), (wanted, _) = result, expected
        distinct = bool((indices.sort(dim=1).values.diff(dim=1) > 0).all())
        pre = torch.addmm(b_enc, x_NM, W_enc_ML)
        return distinct and agree(acts, wanted) and agree(pre.gather(1, indices).relu(), wanted)

    others = chosen(goals, {"GEMM alone": product}, right)
    nbytes = x_NM.nbytes + W_enc_ML.nbytes + N * k * (8 + x_NM.itemsize)
    flops = 2.0 * N * M * L
    run = partial(ops.encode_topk, x_NM, W_enc_ML, b_enc, k)
    flops_dtype = torch.bfloat16 if x_NM.device.type == "cpu" and x_NM.dtype == torch.float32 and screening() else None
    return Case("encode_topk", variant, x_NM.dtype, lambda: run, nbytes, flops, others, like_reference, flops_dtype)


def screening() -> bool:
    """Whether encode_topk's C++ kernel rules latents out by a bfloat16 product on this CPU (sizes permitting)."""
    try:
        from groupcc.ops.encode_topk.screening import fast_bfloat16
    except ImportError:  # without the extension
        return False
    return fast_bfloat16()


def gather(variant: str, maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str, goals: Goals) -> Case:
    """orbit_gather of one image's maps, against F.grid_sample (bilinear)."""
    G, P, _ = points_GP2.shape
    D = maps_BSHWD.shape[-1]
    touched, taps = pixels_read(maps_BSHWD, points_GP2, interpolation)
    others = chosen(goals, {"grid_sample + permute": partial(peers.grid_sample, maps_BSHWD[0], points_GP2)}, agree)
    nbytes = (touched + G * P) * D * maps_BSHWD.itemsize
    return Case(
        "orbit_gather",
        variant,
        maps_BSHWD.dtype,
        lambda: partial(ops.orbit_gather, maps_BSHWD, points_GP2, interpolation),
        nbytes,
        2.0 * taps * D,
        others,
    )


def pixels_read(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> tuple[int, int]:
    """How many pixels of one image's maps the points touch, each counted once, and how many taps of a weight other
    than 0 they have in all."""
    _, S, H, W, _ = maps_BSHWD.shape
    index_GPT, weight_GPT = sampling_taps(points_GP2.cpu(), H, W, interpolation)
    used = weight_GPT != 0
    if S > 1:
        touched = sum(len(index[used_PT].unique()) for index, used_PT in zip(index_GPT, used, strict=True))
    else:
        touched = len(index_GPT[used].unique())
    return touched, int(used.sum())


def decode(
    variant: str,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    goals: Goals,
) -> Case:
    """sparse_decode against the gathered sum, the dense product, and sparsify's decoder."""
    N, K = acts_NK.shape
    W_dec = W_dec_LGD.flatten(1)
    M = W_dec.shape[1]

    def right(result: Any, ours: Any) -> bool:
        return agree(result, ours.flatten(1))

    makers = {
        "F.embedding_bag": partial(peers.embedding_bag, acts_NK, indices_NK, W_dec),
        "dense GEMM": partial(peers.dense_decode, acts_NK, indices_NK, W_dec),
        "sparsify decode": partial(peers.sparsify_decode, acts_NK, indices_NK, W_dec),
    }
    nbytes = (len(indices_NK.unique()) + N) * M * W_dec.itemsize + N * K * (8 + W_dec.itemsize)
    run = partial(ops.sparse_decode, acts_NK, indices_NK, W_dec_LGD)
    flops, others = 2.0 * N * K * M, chosen(goals, makers, right)
    return Case("sparse_decode", variant, W_dec.dtype, lambda: run, nbytes, flops, others)


def decode_backward(
    variant: str,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    goals: Goals,
) -> Case:
    """Backward of sparse_decode alone, through autograd: d acts and dW_dec."""
    N, K = acts_NK.shape
    L, G, D = W_dec_LGD.shape
    generator = torch.Generator().manual_seed(1)
    grad = torch.randn(N, G, D, generator=generator).to(W_dec_LGD)

    def build() -> Call:
        acts, W_dec = acts_NK.detach().requires_grad_(), W_dec_LGD.detach().requires_grad_()
        out = ops.sparse_decode(acts, indices_NK, W_dec)
        return lambda: torch.autograd.grad(out, (acts, W_dec), grad, retain_graph=True)

    def right(result: Any, ours: Any) -> bool:
        d_acts = result[0] if result[0].shape == acts_NK.shape else result[0].gather(1, indices_NK)
        return agree((d_acts, result[1]), (ours[0], ours[1].flatten(1)))

    given = (acts_NK, indices_NK, W_dec_LGD.flatten(1), grad.flatten(1))
    makers = {
        "dense autograd": partial(peers.dense_backward, *given),
        "sparsify backward": partial(peers.sparsify_backward, *given),
    }
    size = W_dec_LGD.itemsize
    nbytes = (len(indices_NK.unique()) + N + L) * G * D * size + N * K * (8 + 2 * size)
    flops, others = 4.0 * N * K * G * D, chosen(goals, makers, right)
    return Case("sparse_decode", f"backward, {variant}", W_dec_LGD.dtype, build, nbytes, flops, others)


def decode_loss(
    variant: str,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    _: Goals,
) -> Case:
    """decode_loss and its backward: per-block losses, d acts and dW_dec. Compared with the reference alone."""
    N, K = acts_NK.shape
    L, G, D = W_dec_LGD.shape
    target = torch.randn(N, G, D, generator=torch.Generator().manual_seed(1)).to(W_dec_LGD)
    b_dec = torch.zeros(G, D).to(W_dec_LGD)
    acts, W_dec = acts_NK.detach().requires_grad_(), W_dec_LGD.detach().requires_grad_()

    def run() -> tuple[torch.Tensor, ...]:
        loss, _ = ops.decode_loss(acts, indices_NK, W_dec, b_dec, target)
        return loss.detach(), *torch.autograd.grad(loss.sum(), (acts, W_dec))

    # Forward: rows of W_dec, target, residual. Backward: residual, rows of W_dec, dW_dec.
    nbytes = (2 * len(indices_NK.unique()) + 3 * N + L) * G * D * W_dec.itemsize
    return Case(
        "decode_loss",
        f"and backward, {variant}",
        W_dec.dtype,
        lambda: run,
        nbytes,
        (6.0 * K + 3) * N * G * D,
        agrees=partial(agree, inputs=W_dec.dtype),  # the losses are float32 whatever they are computed from
    )


def gather_encode(variant: str, maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, n_latents: int) -> Case:
    """orbit_encode: the gather inside the encoder's product."""
    B, _, _, _, D = maps_BSHWD.shape
    G, P, _ = points_GP2.shape
    W_enc = (torch.randn(G, D, n_latents, generator=torch.Generator().manual_seed(2)) / (G * D) ** 0.5).to(maps_BSHWD)
    b_enc = torch.zeros(n_latents).to(maps_BSHWD)
    touched, _ = pixels_read(maps_BSHWD, points_GP2, "bilinear")
    nbytes = B * touched * D * W_enc.itemsize + W_enc.nbytes + B * P * n_latents * W_enc.itemsize
    return Case(
        "orbit_encode",
        variant,
        maps_BSHWD.dtype,
        lambda: partial(ops.orbit_encode, maps_BSHWD, points_GP2, W_enc, b_enc),
        nbytes,
        2.0 * B * P * G * D * n_latents,
    )


def orbit_points(name: str, side: int) -> torch.Tensor:
    """Where each element of the group finds each pixel of the disc inside a map of `side`²: [G, P, 2], float64."""
    matrices = torch.tensor(as_planar(group(name), "this case").matrices, dtype=torch.float64)
    middle = (side - 1) / 2
    axis = torch.arange(side, dtype=torch.float64) - middle
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    inside = x**2 + y**2 <= middle**2
    offsets = torch.stack([x[inside], y[inside]], dim=-1)
    return (torch.einsum("gij,pj->gpi", matrices, offsets) + middle).clamp(0, side - 1)
