"""orbit_correlate on GPUs: maps [B, S, H, W, D], points [G, P, 2], W [L, G, D] → z [B·P, L, G] or its maximum.

As group_correlate, but the transform of the orbits samples them from the maps, so that orbits are never in memory.
Their coefficients are, which the products read. The gradients are those of group_correlate and then of orbit_gather,
which sums by pixels; between the two the orbits' gradient is in memory.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import triton
import triton.language as tl

from groupcc.groups import Group
from groupcc.ops._triton import launch
from groupcc.ops._triton.group_strongest import strongest
from groupcc.ops._triton.group_transform import (
    W_coefficients,
    acts_rows,
    by_matrix,
    elements,
    plan_for,
    products,
    read_tile,
    row_table,
    tile,
    transform,
    where,
)
from groupcc.ops._triton.group_transform import too_large as too_many_columns
from groupcc.ops.orbit_correlate import Args
from groupcc.ops.orbit_gather import tap_table, too_large

__all__ = ["builds", "forward", "unsupported"]

# With four warps samples and addresses of a tile leave sm_90's registers, with 64 elements read at a time sm_80's.
_CONFIGS = [triton.Config({"BLOCK": 64}, num_warps=8, num_stages=1)]


def unsupported(args: Args) -> str | None:
    maps, points, W, b, *_ = args
    if b is not None and maps.dtype == torch.float64:
        return "the Triton kernels take float32, bfloat16 or float16, got torch.float64"
    (L, _, D), N = W.shape, len(maps) * points.shape[1]
    return launch.why_not((maps, W, b)) or too_large(maps, points) or too_many_columns(N, L, D)


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """z and no poses, or with a bias values and poses; and the coefficients of orbits and W for the gradients."""
    maps_BSHWD, points_GP2, W_LGD, b_L, group, interpolation = args
    (L, G, D), N = W_LGD.shape, len(maps_BSHWD) * points_GP2.shape[1]
    acts = _orbit_coefficients(maps_BSHWD, points_GP2, group, interpolation)
    W = W_coefficients(W_LGD, group)
    found = products(acts, W, group, N, L, D)
    if b_L is not None:
        return *strongest(found, b_L, group, N), acts, W
    plan = plan_for(group, acts)
    z = transform(found, plan.inverse.t(), plan.sizes, elements(group), N, L)
    return z.view(N, G, L).transpose(1, 2), acts.new_empty(0, 0, dtype=torch.int64), acts, W


def _orbit_coefficients(
    maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, group: Group, interpolation: str
) -> torch.Tensor:
    """Of the orbits that `orbit_gather` would form, flat."""
    maps, plan = maps_BSHWD.contiguous(), plan_for(group, maps_BSHWD)
    (B, S, H, W, D), P = maps.shape, points_GP2.shape[1]
    N, (R, G) = B * P, plan.left.shape
    table = tap_table(points_GP2, S, H, W, interpolation, plan.left.dtype, maps.device)
    out = maps.new_empty(R * N * D)
    if out.numel():
        target = row_table(acts_rows(plan), maps.device)
        sizes = (N, P, table.pixels, D, G, R, table.index.shape[1], read_tile(G, D), tile(R))
        _transform_maps[lambda meta: (N * triton.cdiv(D, meta["BLOCK"]) * triton.cdiv(R, tile(R)),)](
            maps, table.index, table.weight, plan.left, target, out, *sizes
        )
    return out


@launch.tuned(_CONFIGS, key=["G", "R", "TAPS"])
@triton.jit
def _transform_maps(
    maps,
    index,
    weight,
    matrix,
    target,
    out,
    N,
    P,
    pixels,
    D,
    G,
    R,
    TAPS: tl.constexpr,
    BLOCK_G: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[row r, n, d] = Σ_g matrix[r, g] · a[n, g, d] with a[b·P + p, g] = Σ_t weight · maps[b, index].

    Taps [P·G, TAPS] lie at row p·G + g, maps are [B, pixels, D]. A tile has BLOCK channels of one example, so that a
    tap is read once for all of them; programs that follow each other have neighbouring positions, whose pixels they
    share in L2.
    """
    blocks = tl.cdiv(R, BLOCK_R)
    tiles = tl.cdiv(D, BLOCK)
    program = tl.program_id(0)
    r = program % blocks * BLOCK_R + tl.arange(0, BLOCK_R)
    d = program // blocks % tiles * BLOCK + tl.arange(0, BLOCK)
    n = program // blocks // tiles + tl.zeros((1,), tl.int32)
    image = (n // P).to(tl.int64) * pixels
    acc = tl.zeros((BLOCK, BLOCK_R), matrix.dtype.element_ty)
    for start in range(0, G, BLOCK_G):
        g = start + tl.arange(0, BLOCK_G)
        tap = (n % P * G + g) * TAPS
        acts = tl.zeros((BLOCK, BLOCK_G), weight.dtype.element_ty)
        for t in range(TAPS):
            share = tl.load(weight + (tap + t), mask=g < G, other=0.0)
            pixel = tl.load(index + (tap + t), mask=g < G, other=0)
            read = (share != 0.0)[None, :] & (d < D)[:, None]  # NaN in a pixel without a share does not spread
            value = tl.load(maps + ((image + pixel) * D)[None, :] + d[:, None], mask=read, other=0.0)
            acts += share[None, :] * value.to(acts.dtype)
        entry = tl.load(
            matrix + r[None, :] * G + g[:, None],
            mask=(g < G)[:, None] & (r < R)[None, :],
            other=0.0,
        )
        acc = by_matrix(acts.to(maps.dtype.element_ty), entry, acc)  # rounded as orbit_gather rounds
    written = (d < D)[:, None] & (r < R)[None, :]
    tl.store(out + (where(target, r, R, n, N, D) + d[:, None]), acc, mask=written)


def builds() -> list[launch.Build]:
    """For a group of 64 elements or more, also where no size is a multiple of 16, and for one of up to 16 elements;
    bilinear and B-spline."""
    found = []
    for dtype, name in ((torch.bfloat16, "*bf16"), (torch.float16, "*fp16"), (torch.float32, "*fp32")):
        types = {
            **dict.fromkeys(("maps", "out"), name),
            **dict.fromkeys(("weight", "matrix"), "*fp32"),
            **dict.fromkeys(("index", "target"), "*i32"),
            **dict.fromkeys(("N", "P", "pixels", "D", "G", "R"), "i32"),
        }
        for config in _CONFIGS:
            for rows, width, taps in ((64, 16, 4), (64, 16, 9), (64, 1, 4), (64, 1, 9), (16, 16, 4), (16, 1, 9)):
                constants = {"TAPS": taps, "BLOCK_G": read_tile(rows, width), "BLOCK_R": rows}
                divisible = ("D", "G", "R") if width == 16 else ()
                build = launch.Build.of(_transform_maps, types, config, constants, divisible)
                found.append(replace(build, tensor_cores=dtype.itemsize == 2))
    return found
