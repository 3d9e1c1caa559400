"""A group's transforms on the CPU in C++: their matrices in parts, and the launcher of csrc/group_correlate.cpp."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops._cpp.launch import _C, empty, threads
from groupcc.ops._group_fourier import Plan, plan_of


class Folds(NamedTuple):
    """A matrix [R, G] of `Plan` as csrc/group_fold.h reads it: `elements` int64 [S, Q], `order` int64 [R], `starts`
    int64 [S + 1], `forth` and `back`, flat. `compiled` holds them as C++ takes them."""

    elements: torch.Tensor
    order: torch.Tensor
    starts: torch.Tensor
    forth: torch.Tensor
    back: torch.Tensor
    compiled: _C.Folds


@lru_cache(maxsize=96)
def folds_of(group: Group, which: str, dtype: torch.dtype) -> Folds:
    """Returns `left`, `right` or `inverse` of the group's `Plan`, folded.

    If t² = e and every row satisfies M[r, g·t] = ±M[r, g], then half of the columns determine the other half. This
    function looks for up to two commuting involutions of this kind. Each halves the multiplications. The half turn is
    −1 or 1 in every irrep, and the irreps of `Group.irreps` have diagonal reflections. Example D4: the half turn and
    one reflection, so 8 columns become 2.
    """
    with torch.inference_mode(False), torch.device("cpu"):  # kept
        exact = getattr(plan_of(group, torch.float64, torch.device("cpu")), which)
        cayley = torch.from_numpy(group.cayley.copy())
        subgroup, signs = [int(group.identity)], torch.zeros(len(exact), dtype=torch.int64)
        for t in range(group.order):
            involution = t not in subgroup and int(cayley[t, t]) == group.identity
            commutes = all(int(cayley[s, t]) == int(cayley[t, s]) for s in subgroup)
            if len(subgroup) < 4 and involution and commutes and (sign := _signs(exact, cayley[:, t])) is not None:
                signs += len(subgroup) * (sign < 0)
                subgroup += [int(cayley[s, t]) for s in subgroup]
        cosets = cayley[:, subgroup]
        cosets = cosets[cosets[:, 0] == cosets.amin(1)]  # of each coset once: where its lowest element is first
        order = signs.argsort(stable=True)
        starts = torch.searchsorted(signs[order], torch.arange(len(subgroup) + 1))
        kept = exact.to(dtype)[order][:, cosets[:, 0]]
        parts = [kept[a:b].t().flatten() for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
        tensors = cosets.t().contiguous(), order, starts, torch.cat(parts), kept.flatten()
        return Folds(*tensors, _C.Folds(*tensors))


def _signs(matrix_RG: torch.Tensor, moved_G: torch.Tensor) -> torch.Tensor | None:
    """−1 or 1 of each row, which has that times its own entry at moved[g] for every g; None where a row has neither."""
    moved = matrix_RG[:, moved_G]
    sign = torch.where((moved + matrix_RG).abs().amax(1) < (moved - matrix_RG).abs().amax(1), -1.0, 1.0)
    apart = (moved - sign[:, None] * matrix_RG).abs().max()
    return sign if float(apart) <= 1e-12 * float(matrix_RG.abs().max()) else None


class Layout(NamedTuple):
    """Where the rows of `width` elements of N examples lie: `compiled`, as C++ takes it, of `numel` elements in all."""

    compiled: _C.Layout
    numel: int


@lru_cache(maxsize=256)
def elements(N: int, G: int, width: int) -> Layout:
    """[N, G, width]."""
    offset, stride = width * torch.arange(G, device="cpu"), torch.full((G,), G * width, device="cpu")
    return Layout(_C.Layout(offset, stride, N, width), N * G * width)


def acts_layout(plan: Plan, N: int, D: int) -> Layout:
    return _coefficients(tuple((B, d, d) for B, d, _ in plan.sizes), N, D)


def weights_layout(plan: Plan, L: int, D: int) -> Layout:
    return _coefficients(tuple((B, c, d) for B, d, c in plan.sizes), L, D)


def products_layout(plan: Plan, N: int, L: int) -> Layout:
    return _coefficients(tuple(plan.sizes), N, L)


@lru_cache(maxsize=256)
def _coefficients(sizes: tuple[tuple[int, int, int], ...], N: int, width: int) -> Layout:
    """[B, outer, N, inner, width] for every (B, outer, inner), one after another; rows are (b, outer, inner)."""
    offsets, strides, begin = [], [], 0
    for B, outer, inner in sizes:
        first = torch.arange(B * outer, device="cpu")[:, None] * (N * inner * width)
        block = first + torch.arange(inner, device="cpu") * width
        offsets.append(begin + block.flatten())
        strides.append(torch.full((B * outer * inner,), inner * width, device="cpu"))
        begin += B * outer * inner * N * width
    return Layout(_C.Layout(torch.cat(offsets), torch.cat(strides), N, width), begin)


def transform(x: torch.Tensor, folds: Folds, source: Layout, target: Layout, *, back: bool = False) -> torch.Tensor:
    """Rows of `target` of x's rows of `source`, flat: coefficients of elements, or with `back` elements of coefficients
    by the transpose."""
    x, out = x.contiguous(), empty((target.numel,), x.dtype)
    _C.group_correlate_transform(x, out, folds.compiled, source.compiled, target.compiled, back, threads())
    return out
