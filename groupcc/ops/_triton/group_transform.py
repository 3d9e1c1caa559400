"""The Fourier transform on a group in Triton, and the products of coefficients: what correlations on a group share.

A transform is one product with a small matrix, which reads rows where they lie and writes rows where the next step
reads them, so that nothing is permuted in between: coefficients of acts as [irrep, i, N, m, D], of W as
[irrep, j, L, m, D], their products as [irrep, i, N, j, L]. In 16-bit types the matrix counts as the sum of two of that
type, so that it is as good as exact, and each step rounds its result once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
import triton
import triton.language as tl

from groupcc.groups import Group
from groupcc.ops._group_fourier import Plan, by_size, plan_of
from groupcc.ops._triton import launch

Sizes = tuple[tuple[int, int, int], ...]
"""Rows (b, outer, inner) of n examples, laid out as [B, outer, n, inner, width] for each (B, outer, inner) in turn."""

# Rows of the result, and of x, that a tile has: the products of sm_80 hold all of these in registers.
_MOST = 64
_MOST_READ = 32

CONFIGS = [triton.Config({"BLOCK": 64}, num_warps=4, num_stages=1)]
"""Larger tiles leave the registers of sm_80 where no size is a multiple of 16."""


def too_large(N: int, L: int, D: int) -> str | None:
    """Why int32 cannot number the columns of these transforms, or None."""
    most = max(N * D, L * D, N * L)
    return None if most < 2**31 else f"N·D, L·D and N·L must be less than 2^31, got {most}"


def plan_for(group: Group, like: torch.Tensor) -> Plan:
    """The group's matrices as these kernels read them: in fp32 at least."""
    return plan_of(group, torch.promote_types(like.dtype, torch.float32), like.device)


def elements(group: Group) -> Sizes:
    """Rows g of [n, G, width]."""
    return ((1, 1, group.order),)


def acts_rows(plan: Plan) -> Sizes:
    return tuple((B, d, d) for B, d, _ in plan.sizes)


def _W_rows(plan: Plan) -> Sizes:
    return tuple((B, c, d) for B, d, c in plan.sizes)


def coefficients(acts_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group) -> tuple[torch.Tensor, torch.Tensor]:
    """Of acts and of W, flat."""
    plan, (N, _, D) = plan_for(group, acts_NGD), acts_NGD.shape
    return transform(acts_NGD, plan.left, elements(group), acts_rows(plan), N, D), W_coefficients(W_LGD, group)


def W_coefficients(W_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    plan, (L, _, D) = plan_for(group, W_LGD), W_LGD.shape
    return transform(W_LGD, plan.right, elements(group), _W_rows(plan), L, D)


def products(acts: torch.Tensor, W: torch.Tensor, group: Group, N: int, L: int, D: int) -> torch.Tensor:
    """Of coefficients, flat: one batched product for the irreps of each size."""
    plan = plan_for(group, acts)
    found = acts.new_empty(len(plan.inverse) * N * L)
    for acts_b, W_b, found_b in by_size(plan.sizes, N, L, D, acts, W, found):
        torch.bmm(acts_b, W_b.transpose(1, 2), out=found_b)
    return found


def gradients(
    d_products: torch.Tensor, acts: torch.Tensor, W: torch.Tensor, group: Group, N: int, L: int, D: int, need_acts: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (of no examples unless needed) and d_W [L, G, D]; `acts` and `W`: coefficients."""
    plan, G = plan_for(group, acts), group.order
    d_W = torch.empty_like(W)
    for acts_b, d_W_b, d_products_b in by_size(plan.sizes, N, L, D, acts, d_W, d_products):
        torch.bmm(d_products_b.transpose(1, 2), acts_b, out=d_W_b)
    d_W = transform(d_W, plan.right.t(), _W_rows(plan), elements(group), L, D).view(L, G, D)
    if not need_acts:
        return acts.new_empty(0, G, D), d_W
    d_acts = torch.empty_like(acts)
    for d_acts_b, W_b, d_products_b in by_size(plan.sizes, N, L, D, d_acts, W, d_products):
        torch.bmm(d_products_b, W_b, out=d_acts_b)
    return transform(d_acts, plan.left.t(), acts_rows(plan), elements(group), N, D).view(N, G, D), d_W


def transform(
    x: torch.Tensor, matrix_RC: torch.Tensor, source: Sizes, target: Sizes, N: int, width: int
) -> torch.Tensor:
    """Row r of `target` is Σ_c matrix[r, c] · row c of `source`, for each of N examples and column of `width`; flat."""
    x, (R, C) = x.contiguous(), matrix_RC.shape
    out = x.new_empty(R * N * width)
    if out.numel():
        reads, writes = row_table(source, x.device), row_table(target, x.device)
        sizes = (N, width, C, R, *matrix_RC.stride(), read_tile(C, width), tile(R))
        _transform[lambda meta: (triton.cdiv(N * width, meta["BLOCK"]) * triton.cdiv(R, tile(R)),)](
            x, matrix_RC, reads, writes, out, *sizes
        )
    return out


@lru_cache(maxsize=256)
def row_table(sizes: Sizes, device: torch.device) -> torch.Tensor:
    """int32 [3, R]: row r of example n of N is row first·N + n·step + place of the memory, in units of the width."""
    first: list[int] = []
    step: list[int] = []
    place: list[int] = []
    begin = 0
    for B, outer, inner in sizes:
        for block in range(B * outer):
            first += [begin + block * inner] * inner
            step += [inner] * inner
            place += range(inner)
        begin += B * outer * inner
    with torch.inference_mode(False):  # kept
        return torch.tensor([first, step, place], dtype=torch.int32, device=device)


def tile(rows: int) -> int:
    """How many of so many rows of the result a tile has."""
    return min(max(launch.next_power_of_2(rows), 16), _MOST)


def read_tile(rows: int, width: int) -> int:
    """Returns how many of so many rows of this width a tile reads at a time."""
    # In rows that begin anywhere, neighbours are not read together, and each element's address is in a register.
    return min(tile(rows), _MOST_READ if width % 16 == 0 else 16)


@triton.jit
def where(rows, r, R, n, N, width):
    """Where rows r of examples n begin, [n, r]; `rows` is a `row_table`."""
    first = tl.load(rows + r, mask=r < R, other=0).to(tl.int64)
    step = tl.load(rows + R + r, mask=r < R, other=0).to(tl.int64)
    place = tl.load(rows + 2 * R + r, mask=r < R, other=0)
    return ((first * N + place) * width)[None, :] + (n * width).to(tl.int64)[:, None] * step[None, :]


@triton.jit
def by_matrix(x, matrix, acc):
    """acc + x @ matrix; in 16-bit types with the matrix as the sum of two."""
    rounded = matrix.to(x.dtype)
    acc = launch.dot(x, rounded, acc)
    if x.dtype.primitive_bitwidth == 16:
        acc = launch.dot(x, (matrix - rounded.to(matrix.dtype)).to(x.dtype), acc)
    return acc


@launch.tuned(CONFIGS, key=["C", "R"])
@triton.jit
def _transform(
    x,
    matrix,
    source,
    target,
    out,
    N,
    width,
    C,
    R,
    stride_r,
    stride_c,
    BLOCK_C: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[row r, w] = Σ_c matrix[r, c] · x[row c, w] for each of N examples; a tile has BLOCK of their N·width columns.

    Columns of all examples count as one row of them, so that tiles are full whatever the width.
    """
    blocks = tl.cdiv(R, BLOCK_R)
    program = tl.program_id(0)
    column = program // blocks * BLOCK + tl.arange(0, BLOCK)
    n, w = column // width, column % width
    inside = (column < N * width)[:, None]
    r = program % blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    acc = tl.zeros((BLOCK, BLOCK_R), matrix.dtype.element_ty)
    for start in range(0, C, BLOCK_C):
        c = start + tl.arange(0, BLOCK_C)
        value = tl.load(x + (where(source, c, C, n, N, width) + w[:, None]), mask=inside & (c < C)[None, :], other=0.0)
        entry = tl.load(
            matrix + c[:, None] * stride_c + r[None, :] * stride_r,
            mask=(c < C)[:, None] & (r < R)[None, :],
            other=0.0,
        )
        acc = by_matrix(value, entry, acc)
    tl.store(out + (where(target, r, R, n, N, width) + w[:, None]), acc, mask=inside & (r < R)[None, :])


def builds() -> list[launch.Build]:
    """Every tile for a group of 64 elements or more, the matrix and its transpose, also where no size is a multiple of
    16, and for one of up to 16 elements."""
    found = []
    for dtype, name in ((torch.bfloat16, "*bf16"), (torch.float16, "*fp16"), (torch.float32, "*fp32")):
        half = dtype.itemsize == 2
        types = {
            **dict.fromkeys(("x", "out"), name),
            "matrix": "*fp32",
            **dict.fromkeys(("source", "target"), "*i32"),
            **dict.fromkeys(("N", "width", "C", "R", "stride_r", "stride_c"), "i32"),
        }
        for config in CONFIGS:
            for rows, width, unit in (
                *((64, 16, "stride_c"), (64, 16, "stride_r")),
                *((64, 1, "stride_c"), (64, 1, "stride_r"), (16, 16, "stride_c")),
            ):
                constants = {unit: 1, "BLOCK_C": read_tile(rows, width), "BLOCK_R": rows}
                divisible = ("width", "C", "R", *({"stride_r", "stride_c"} - {unit})) if width == 16 else ()
                build = launch.Build.of(_transform, types, config, constants, divisible)
                found.append(replace(build, tensor_cores=half))
    return found
