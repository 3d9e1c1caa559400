"""The ops of pose-tied crosscoders as cases: base latents W [L, G, D] and orbits acts [N, G, D]."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from groupcc import ops
from groupcc.bench.cases import Call, Case, Goals, agree, chosen, pixels_read
from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.models.forms.poses import neighbours
from groupcc.ops.group_correlate.plan import saved_by_fourier

__all__ = [
    "group_correlate",
    "group_correlate_max",
    "group_decode_loss",
    "group_encode_at",
    "orbit_correlate",
    "pose_maxima",
]


def group_correlate(variant: str, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, goals: Goals) -> Case:
    """group_correlate, and beside it one product with all translates of W, made beforehand: the untied encoder's."""
    (N, _, D), L = acts_NGD.shape, W_LGD.shape[0]

    def expanded() -> Call:
        translates = W_LGD[:, translation_table(G)].flatten(0, 1).flatten(1)
        x, out = acts_NGD.flatten(1), acts_NGD.new_empty(N, L * G.order)
        return lambda: torch.mm(x, translates.t(), out=out).view(N, L, G.order)

    nbytes = acts_NGD.nbytes + W_LGD.nbytes + N * L * G.order * acts_NGD.itemsize
    flops = 2.0 * N * L * D * G.order**2 / saved_by_fourier(G)
    others = chosen(goals, {"expanded GEMM": expanded}, agree)
    run = partial(ops.group_correlate, acts_NGD, W_LGD, G)
    return Case("group_correlate", variant, acts_NGD.dtype, lambda: run, nbytes, flops, others)


def group_correlate_max(variant: str, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, goals: Goals) -> Case:
    """group_correlate_max, and beside it group_correlate and torch.max."""
    (N, _, D), L = acts_NGD.shape, W_LGD.shape[0]
    b = acts_NGD.new_zeros(L)

    def whole() -> Call:
        return lambda: tuple((ops.group_correlate(acts_NGD, W_LGD, G) + b[:, None]).max(2))

    nbytes = acts_NGD.nbytes + W_LGD.nbytes + N * L * (acts_NGD.itemsize + 8)
    flops = 2.0 * N * L * D * G.order**2 / saved_by_fourier(G)

    def right(result: Any, expected: Any) -> bool:  # which of two poses as strong is a matter of rounding
        return agree(result[0], expected[0])

    others = chosen(goals, {"group_correlate, max": whole}, right)
    run = partial(ops.group_correlate_max, acts_NGD, W_LGD, b, G)
    return Case("group_correlate_max", variant, acts_NGD.dtype, lambda: run, nbytes, flops, others, right)


def group_decode_loss(variant: str, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, _: Goals, *, k: int) -> Case:
    """group_decode_loss and its backward: loss, d acts and dW_dec. Compared with the reference alone."""
    known, indices, poses = _strongest(acts_NGD, W_LGD, G, k)
    acts, W_dec = known.requires_grad_(), W_LGD.detach().requires_grad_()
    b_dec = W_LGD.new_zeros(1, W_LGD.shape[2])

    def run() -> tuple[torch.Tensor, ...]:
        loss, _residual = ops.group_decode_loss(acts, indices, poses, W_dec, b_dec, acts_NGD, G)
        return loss.detach(), *torch.autograd.grad(loss, (acts, W_dec))

    N, L, D = len(acts_NGD), len(W_LGD), W_LGD.shape[2]
    # Forward: rows of W_dec, target, residual. Backward: residual, rows of W_dec, dW_dec.
    nbytes = (2 * len(indices.unique()) + 3 * N + L) * G.order * D * W_dec.itemsize
    return Case(
        "group_decode_loss",
        f"and backward, {variant}, k = {k}",
        W_dec.dtype,
        lambda: run,
        nbytes,
        (6.0 * k + 3) * N * G.order * D,
        agrees=partial(agree, inputs=W_dec.dtype),  # the loss is float32 whatever it is computed from
    )


def group_encode_at(
    variant: str, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, goals: Goals, *, k: int
) -> Case:
    """The gradients of known acts by group_encode_at, and beside it those through all of group_correlate."""
    known, indices, poses = _strongest(acts_NGD, W_LGD, G, k)
    W = W_LGD.detach().requires_grad_()
    b = W_LGD.new_zeros(len(W_LGD)).requires_grad_()
    grad = torch.randn(known.shape, generator=torch.Generator().manual_seed(1)).to(known)
    rows = torch.arange(len(known), device=known.device)[:, None]

    def run() -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(ops.group_encode_at(acts_NGD, W, b, indices, poses, G, known=known), (W, b), grad)

    def dense() -> Call:
        def call() -> tuple[torch.Tensor, ...]:
            pre = ops.group_correlate(acts_NGD, W, G) + b[:, None]
            return torch.autograd.grad(torch.relu(pre[rows, indices, poses]), (W, b), grad)

        return call

    (N, _, D), L = acts_NGD.shape, len(W_LGD)
    nbytes = (N + L) * G.order * D * W.itemsize + N * k * (16 + 2 * W.itemsize)
    others = chosen(goals, {"group_correlate": dense}, agree)
    return Case(
        "group_encode_at",
        f"gradients, {variant}, k = {k}",
        W.dtype,
        lambda: run,
        nbytes,
        2.0 * N * k * G.order * D,
        others,
    )


def pose_maxima(variant: str, acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, _: Goals, *, k: int) -> Case:
    """pose_maxima of k poses by the default configuration's neighbours. Compared with the reference alone."""
    z_NLG = ops.group_correlate(acts_NGD, W_LGD, G)
    near_LG = neighbours(W_LGD, G, 15.0, 0.7)

    def right(result: Any, expected: Any) -> bool:
        taken, values = result
        return torch.equal(z_NLG.flatten(1).gather(1, taken), values) and torch.equal(values, expected[1])

    nbytes = z_NLG.nbytes + len(acts_NGD) * k * (8 + z_NLG.itemsize)
    run = partial(ops.pose_maxima, z_NLG, near_LG, G, k)
    return Case("pose_maxima", f"{variant}, k = {k}", z_NLG.dtype, lambda: run, nbytes, agrees=right)


def _strongest(
    acts_NGD: torch.Tensor, W_LGD: torch.Tensor, G: Group, k: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a crosscoder that is tied with pose "max" would decode: acts, base latents and poses [N, k]."""
    strongest, poses = ops.group_correlate_max(acts_NGD, W_LGD, W_LGD.new_zeros(len(W_LGD)), G)
    acts, indices = ops.topk(strongest, k)
    return acts, indices, poses.gather(1, indices)


def orbit_correlate(
    variant: str, maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, W_LGD: torch.Tensor, G: Group, goals: Goals
) -> Case:
    """orbit_correlate, and beside it orbit_gather and group_correlate."""
    B, D = len(maps_BSHWD), maps_BSHWD.shape[-1]
    N, L, size = B * points_GP2.shape[1], len(W_LGD), W_LGD.itemsize
    touched, taps = pixels_read(maps_BSHWD, points_GP2, "bilinear")

    def parts() -> Call:
        return lambda: ops.group_correlate(ops.orbit_gather(maps_BSHWD, points_GP2), W_LGD, G)

    nbytes = B * touched * D * size + W_LGD.nbytes + N * L * G.order * size
    flops = 2.0 * N * L * D * G.order**2 / saved_by_fourier(G) + 2.0 * B * taps * D
    others = chosen(goals, {"orbit_gather, group_correlate": parts}, agree)
    run = partial(ops.orbit_correlate, maps_BSHWD, points_GP2, W_LGD, G)
    return Case("orbit_correlate", variant, maps_BSHWD.dtype, lambda: run, nbytes, flops, others)
