"""The strongest pose of each base latent out of coefficients of z, in Triton, and its gradient to these.

z [N, L, G] is an inverse transform of which each (n, l) keeps the largest entry; the gradient starts from that entry's
row of the transform. Nothing of size [N, L, G] but the products is in memory, 2|G| numbers or less for each (n, l).
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl

from groupcc.groups import Group
from groupcc.ops._triton import launch
from groupcc.ops._triton.group_transform import CONFIGS, by_matrix, plan_for, read_tile, row_table, tile, where
from groupcc.ops._triton.keys import LOWEST, key_of, value_of_key

_SPREAD = [triton.Config({"BLOCK": block}, num_warps=warps) for block, warps in ((64, 4), (128, 8))]


def strongest(products: torch.Tensor, b_L: torch.Tensor, group: Group, N: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and int64 poses [N, L] of z + b; `products`: z's coefficients, flat."""
    plan, L, G = plan_for(group, products), len(b_L), group.order
    values, poses = products.new_empty(N, L), products.new_empty(N, L, dtype=torch.int64)
    if values.numel():
        C, rows = len(plan.inverse), row_table(plan.sizes, products.device)
        sizes = (N, L, C, G, read_tile(C, L), tile(G))
        _largest[lambda meta: (triton.cdiv(N * L, meta["BLOCK"]),)](
            products, plan.inverse, rows, b_L.contiguous(), values, poses, *sizes
        )
    return values, poses


def spread(grad_NL: torch.Tensor, poses_NL: torch.Tensor, group: Group) -> torch.Tensor:
    """The gradient to the products, flat."""
    (N, L), plan = grad_NL.shape, plan_for(group, grad_NL)
    C, G = plan.inverse.shape
    d_products = grad_NL.new_empty(C * N * L)
    if d_products.numel():
        rows = row_table(plan.sizes, grad_NL.device)
        _spread[lambda meta: (triton.cdiv(N * L, meta["BLOCK"]) * triton.cdiv(C, _spread_tile(C)),)](
            grad_NL.contiguous(), poses_NL, plan.inverse, rows, d_products, N, L, C, G, _spread_tile(C)
        )
    return d_products


def _spread_tile(C: int) -> int:
    return min(tile(C), 32)


@launch.tuned(CONFIGS, key=["C", "G"])
@triton.jit
def _largest(
    products,
    matrix,
    source,
    b,
    values,
    poses,
    N,
    L,
    C,
    G,
    BLOCK_C: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The largest of z[n, l, h] = Σ_c products[row c, n, l] · matrix[c, h] + b[l], and its h, for BLOCK (n, l)."""
    column = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    n, latent = column // L, column % L
    inside = column < N * L
    bias = tl.load(b + latent, mask=inside, other=0.0)
    best = tl.full((BLOCK,), LOWEST, tl.int32)
    pose = tl.zeros((BLOCK,), tl.int32)
    for first in range(0, G, BLOCK_G):
        h = first + tl.arange(0, BLOCK_G)
        z = tl.zeros((BLOCK, BLOCK_G), matrix.dtype.element_ty) + bias.to(matrix.dtype.element_ty)[:, None]
        for start in range(0, C, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            value = tl.load(
                products + (where(source, c, C, n, N, L) + latent[:, None]),
                mask=inside[:, None] & (c < C)[None, :],
                other=0.0,
            )
            entry = tl.load(matrix + c[:, None] * G + h[None, :], mask=(c < C)[:, None] & (h < G)[None, :], other=0.0)
            z = by_matrix(value, entry, z)
        # Keys of the rounded z: of two poses whose values a caller cannot tell apart, the lower one wins.
        keys = tl.where((h < G)[None, :], key_of(z.to(bias.dtype)), LOWEST)
        highest, at = tl.max(keys, 1, return_indices=True)  # of equal keys the first
        pose = tl.where(highest > best, first + at, pose)
        best = tl.maximum(best, highest)
    tl.store(poses + column, pose, mask=inside)
    tl.store(values + column, value_of_key(best, values.dtype.element_ty), mask=inside)


@launch.tuned(_SPREAD, key=["C", "G"])
@triton.jit
def _spread(grad, poses, matrix, target, d_products, N, L, C, G, BLOCK_C: tl.constexpr, BLOCK: tl.constexpr):
    """d_products[row c, n, l] = grad[n, l] · matrix[c, pose[n, l]]."""
    blocks = tl.cdiv(C, BLOCK_C)
    program = tl.program_id(0)
    column = program // blocks * BLOCK + tl.arange(0, BLOCK)
    n, latent = column // L, column % L
    inside = column < N * L
    c = program % blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    pose = tl.load(poses + column, mask=inside, other=0).to(tl.int32)
    value = tl.load(grad + column, mask=inside, other=0.0)
    written = inside[:, None] & (c < C)[None, :]
    share = tl.load(matrix + (c * G)[None, :] + pose[:, None], mask=written, other=0.0)
    at = where(target, c, C, n, N, L) + latent[:, None]
    tl.store(d_products + at, value.to(share.dtype)[:, None] * share, mask=written)


def builds() -> list[launch.Build]:
    """For a group of 64 elements or more, also where no size is a multiple of 16, and for one of up to 16 elements."""
    found = []
    for dtype, name in ((torch.bfloat16, "*bf16"), (torch.float16, "*fp16"), (torch.float32, "*fp32")):
        half = dtype.itemsize == 2
        types = {
            **dict.fromkeys(("products", "b", "values", "grad", "d_products"), name),
            **dict.fromkeys(("source", "target"), "*i32"),
            "matrix": "*fp32",
            "poses": "*i64",
            **dict.fromkeys(("N", "L", "C", "G"), "i32"),
        }
        for rows, width in ((64, 16), (64, 1), (16, 16)):
            sizes = {"BLOCK_C": read_tile(rows, width), "BLOCK_G": rows}
            divisible = ("L", "C", "G") if width == 16 else ()
            for config in CONFIGS:
                build = launch.Build.of(_largest, types, config, sizes, divisible)
                found.append(replace(build, tensor_cores=half))
            for config in _SPREAD:
                found.append(launch.Build.of(_spread, types, config, {"BLOCK_C": _spread_tile(rows)}, divisible))
    return found
