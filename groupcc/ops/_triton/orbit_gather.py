"""The gather of orbits out of maps [B, S, H, W, D] at points [G, P, 2], and its transpose, for the ops that gather."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import launch
from groupcc.ops.orbit_gather import TapTable, tap_table

_CONFIGS = [triton.Config({"TILE": tile}, num_warps=warps) for tile, warps in ((2048, 4), (4096, 8))]


@launch.tuned(_CONFIGS, key=["D", "TAPS"])
@triton.jit
def _gather(maps, index, weight, out, rows, pixels, D, TAPS: tl.constexpr, BLOCK_D: tl.constexpr, TILE: tl.constexpr):
    """out[b, r, d] = Σ_t weight[r, t] · maps[b, index[r, t], d]: maps [B, pixels, D], out [B, rows, D].

    A program has TILE elements: TILE / BLOCK_D rows of one image. Programs that follow each other share rows, then
    the image, so that its maps are read from memory once.
    """
    BLOCK_R: tl.constexpr = TILE // BLOCK_D
    tiles = tl.cdiv(D, BLOCK_D)
    blocks = tl.cdiv(rows, BLOCK_R)
    program = tl.program_id(0)
    b = (program // (tiles * blocks)).to(tl.int64)
    r = (program // tiles % blocks) * BLOCK_R + tl.arange(0, BLOCK_R)
    d = program % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    acc = tl.zeros((BLOCK_R, BLOCK_D), weight.dtype.element_ty)
    for t in tl.static_range(TAPS):
        share = tl.load(weight + r * TAPS + t, mask=r < rows, other=0.0)
        pixel = tl.load(index + r * TAPS + t, mask=r < rows, other=0)
        read = (share != 0.0)[:, None] & (d < D)[None, :]  # NaN in a pixel without a share does not spread
        value = tl.load(maps + (b * pixels + pixel)[:, None] * D + d[None, :], mask=read, other=0.0)
        acc += share[:, None] * value.to(acc.dtype)
    written = (r < rows)[:, None] & (d < D)[None, :]
    # The maps stay in L2, the result passes through.
    tl.store(out + (b * rows + r)[:, None] * D + d[None, :], acc, mask=written, eviction_policy="evict_first")


@launch.tuned(_CONFIGS, key=["D"])
@triton.jit
def _scatter(grad, start, row, weight, d_maps, rows, pixels, D, BLOCK_D: tl.constexpr, TILE: tl.constexpr):
    """d_maps[b, i, d] = Σ_j weight[j] · grad[b, row[j], d], start[i] ≤ j < start[i + 1]: d_maps [B, pixels, D].

    Each pixel's sum is one program's, in the order of rows: no atomics.
    """
    BLOCK_I: tl.constexpr = TILE // BLOCK_D
    tiles = tl.cdiv(D, BLOCK_D)
    blocks = tl.cdiv(pixels, BLOCK_I)
    program = tl.program_id(0)
    b = (program // (tiles * blocks)).to(tl.int64)
    i = (program // tiles % blocks) * BLOCK_I + tl.arange(0, BLOCK_I)
    d = program % tiles * BLOCK_D + tl.arange(0, BLOCK_D)
    first = tl.load(start + i, mask=i < pixels, other=0)
    end = tl.load(start + i + 1, mask=i < pixels, other=0)
    acc = tl.zeros((BLOCK_I, BLOCK_D), weight.dtype.element_ty)
    for step in range(tl.max(end - first)):
        j = first + step
        share = tl.load(weight + j, mask=j < end, other=0.0)
        r = tl.load(row + j, mask=j < end, other=0)
        read = (j < end)[:, None] & (d < D)[None, :]
        value = tl.load(grad + (b * rows + r)[:, None] * D + d[None, :], mask=read, other=0.0)
        acc += share[:, None] * value.to(acc.dtype)
    written = (i < pixels)[:, None] & (d < D)[None, :]
    tl.store(d_maps + (b * pixels + i)[:, None] * D + d[None, :], acc, mask=written)


def gather(maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, interpolation: str) -> torch.Tensor:
    """The aligned activations [B·P, G, D]."""
    maps = maps_BSHWD.contiguous()
    B, S, H, W, D = maps.shape
    G, P, _ = points_GP2.shape
    table = _table(maps, points_GP2, (S, H, W), interpolation)
    out = maps.new_empty(B * P, G, D)
    rows, block = P * G, _block(D)
    if out.numel():
        _gather[_grid(B, rows, D, block)](
            maps, table.index, table.weight, out, rows, table.pixels, D, table.index.shape[1], block
        )
    return out


def scatter(
    grad_NGD: torch.Tensor, points_GP2: torch.Tensor, shape: tuple[int, ...], interpolation: str
) -> torch.Tensor:
    """The transpose: the gradient to maps of this shape."""
    grad = grad_NGD.contiguous()
    B, S, H, W, D = shape
    G, P, _ = points_GP2.shape
    table = _table(grad, points_GP2, (S, H, W), interpolation)
    d_maps = grad.new_empty(shape)
    block = _block(D)
    if d_maps.numel():
        start, row, weight = table.inverse
        _scatter[_grid(B, table.pixels, D, block)](grad, start, row, weight, d_maps, P * G, table.pixels, D, block)
    return d_maps


def _table(like: torch.Tensor, points_GP2: torch.Tensor, sizes: tuple[int, int, int], interpolation: str) -> TapTable:
    weights = torch.promote_types(like.dtype, torch.float32)
    return tap_table(points_GP2, *sizes, interpolation, weights, like.device)


def _grid(B: int, rows: int, D: int, block: int) -> Callable[[dict[str, Any]], tuple[int]]:
    return lambda meta: (B * triton.cdiv(rows, meta["TILE"] // block) * triton.cdiv(D, block),)


def _block(D: int) -> int:
    """How many of D elements a tile has: as many as leave at most a fifth of it empty, 16 to 512."""
    for block in (512, 256, 128, 64):
        if triton.cdiv(D, block) * block * 4 <= D * 5:
            return block
    return min(max(launch.next_power_of_2(D), 16), 64)


def builds() -> list[launch.Build]:
    """Every tile for D = 480; bilinear and B-spline for each dtype."""
    found = []
    sizes = {"rows": "i32", "pixels": "i32", "D": "i32"}
    for dtype in ("bf16", "fp16", "fp32"):
        for config in _CONFIGS:
            options = {"num_warps": config.num_warps, "num_stages": config.num_stages, "divisible": ("D",)}
            tile = config.kwargs["TILE"]
            suffix = f"{dtype} {tile}/{config.num_warps}"
            given = {"BLOCK_D": _block(480), "TILE": tile}
            for interpolation, taps in (("bilinear", 4), ("bspline", 9)):
                signature = {"maps": f"*{dtype}", "index": "*i32", "weight": "*fp32", "out": f"*{dtype}", **sizes}
                signature |= dict.fromkeys(("TAPS", "BLOCK_D", "TILE"), "constexpr")
                name = f"orbit_gather {interpolation} {suffix}"
                found.append(launch.Build(name, _gather, signature, {"TAPS": taps, **given}, **options))
            signature = {"grad": f"*{dtype}", "start": "*i32", "row": "*i32", "weight": "*fp32"}
            signature |= {"d_maps": f"*{dtype}", **sizes, "BLOCK_D": "constexpr", "TILE": "constexpr"}
            found.append(launch.Build(f"orbit_gather backward {suffix}", _scatter, signature, given, **options))
    return found
