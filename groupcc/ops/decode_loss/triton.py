"""decode_loss on GPUs: acts, indices [N, K], W_dec [L, G, D], target → loss [G], residual [N, G, D]."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import launch
from groupcc.ops._triton.latent_sum import TILES, accumulator, sum_rows, too_wide
from groupcc.ops.decode_loss import Args
from groupcc.ops.orbit_gather import tap_table, too_large

__all__ = ["builds", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    why = launch.why_not(args[:5]) or too_wide(args.W_dec_LGD)
    return why or (None if args.points_GP2 is None else too_large(args.target, args.points_GP2))


def forward(args: Args) -> tuple[torch.Tensor, torch.Tensor]:
    acts, indices, W_dec, target = (x.contiguous() for x in (*args[:3], args.target))
    b_dec = None if args.b_dec_GD is None else args.b_dec_GD.contiguous()
    (N, K), (L, G, D), wide = acts.shape, W_dec.shape, accumulator(W_dec.dtype)
    residual = W_dec.new_empty(N, G, D)
    if not residual.numel():
        return W_dec.new_zeros(G, dtype=wide), residual
    index, weight, P, pixels, T = None, None, 1, 1, 1
    if args.points_GP2 is not None:
        S, H, W = target.shape[1:4]
        table = tap_table(args.points_GP2, S, H, W, args.interpolation, wide, target.device)
        index, weight, P, pixels = table.index, table.weight, args.points_GP2.shape[1], table.pixels
        T = index.shape[1]
    block_D = _block_D(D, W_dec.element_size())
    tiles_D = triton.cdiv(D, block_D)
    parts = W_dec.new_empty(tiles_D, N, G, dtype=wide)

    def grid(meta: dict[str, int]) -> tuple[int, int]:
        tile_G = meta["TILE_BYTES"] // W_dec.element_size() // block_D
        return N, triton.cdiv(G, tile_G) * tiles_D

    _decode_loss[grid](
        *(acts, indices, W_dec, b_dec, target, index, weight, residual, parts),
        *(N, K, G, D, P, pixels, launch.next_power_of_2(L), T, block_D),
    )
    return parts.sum((0, 1)), residual


def _block_D(D: int, itemsize: int) -> int:
    """How many of a block's columns a tile has: many, yet at most an eighth of them beyond D where that is possible."""
    block = min(launch.next_power_of_2(D), min(config.kwargs["TILE_BYTES"] for config in TILES) // itemsize)
    while block > 32 and -D % block > D // 8:
        block //= 2
    return block


# acts [N, K], indices int64 [N, K], W_dec [L, G, D], b_dec [G, D], target [N, G, D], or maps [B, pixels, D] with a
# TapTable's index int32 and weight [P·G, T] → residual [N, G, D], losses [D's tiles, N, G].
# Examples run fastest in the grid: a tile of W_dec's columns stays in the L2 while every example passes over it. A tile
# is [blocks g, columns d], so that each row of it is one block's and its squares are that block's loss.
@launch.tuned(TILES, key=["about_L", "G", "D"])
@triton.jit
def _decode_loss(
    acts,
    indices,
    W_dec,
    b_dec,
    target,
    index,
    weight,
    residual,
    losses,
    N,
    K,
    G,
    D,
    P,
    pixels,
    about_L,
    T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    TILE_BYTES: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    n = tl.program_id(0).to(tl.int64)
    BLOCK_G: tl.constexpr = TILE_BYTES * 8 // W_dec.dtype.element_ty.primitive_bitwidth // BLOCK_D
    tiles_D = tl.cdiv(D, BLOCK_D)
    tile_D = tl.program_id(1) % tiles_D
    first_g = tl.program_id(1) // tiles_D * BLOCK_G
    # The sum over latents runs on the tile laid flat, where a thread holds whole columns in every version of Triton.
    flat = tl.arange(0, BLOCK_G * BLOCK_D)
    flat_g, flat_d = first_g + flat // BLOCK_D, tile_D * BLOCK_D + flat % BLOCK_D
    flat_inside = (flat_g < G) & (flat_d < D)
    total = sum_rows(acts, indices, n * K, n * K + K, W_dec, G * D, flat_g * D + flat_d, flat_inside, BLOCK_E)
    error = tl.reshape(total, (BLOCK_G, BLOCK_D))
    g = first_g + tl.arange(0, BLOCK_G)
    d = tile_D * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = (g < G)[:, None] & (d < D)[None, :]
    m = (g * D)[:, None] + d[None, :]
    if b_dec is not None:
        error += tl.load(b_dec + m, mask=inside, other=0)
    if index is None:
        error -= tl.load(target + (n * G * D + m), mask=inside, other=0)
    else:
        # Example n is position n % P of image n // P. A tap of weight 0 is not part of the sum.
        for t in tl.static_range(T):
            tap = (n % P * G + g) * T + t
            share = tl.load(weight + tap, mask=g < G, other=0)
            pixel = n // P * pixels + tl.load(index + tap, mask=g < G, other=0)
            read = inside & (share != 0)[:, None]
            error -= share[:, None] * tl.load(target + ((pixel * D)[:, None] + d[None, :]), mask=read, other=0)
    error = tl.where(inside, error, 0)
    tl.store(residual + (n * G * D + m), error, mask=inside)
    tl.store(losses + ((tile_D.to(tl.int64) * N + n) * G + g), tl.sum(error * error, axis=1), mask=g < G)


def builds() -> list[launch.Build]:
    """Every tile in bf16 and fp32 with the target given; gathered from maps in each dtype, with and without a bias."""
    found = []
    given: dict[str, Any] = {"index": None, "weight": None}
    for config, dtype, constants in [
        *((config, dtype, given | {"T": 1, "BLOCK_D": 128}) for dtype in ("bf16", "fp32") for config in TILES),
        *((TILES[0], dtype, {"T": 4, "BLOCK_D": 128}) for dtype in ("bf16", "fp16", "fp32")),
        (TILES[1], "bf16", {"T": 9, "BLOCK_D": 32, "b_dec": None}),
    ]:
        types = {
            **dict.fromkeys(("acts", "W_dec", "b_dec", "target", "residual"), f"*{dtype}"),
            **{"indices": "*i64", "index": "*i32", "weight": "*fp32", "losses": "*fp32"},
            **dict.fromkeys(("N", "K", "G", "D", "P", "pixels", "about_L"), "i32"),
        }
        found.append(launch.Build.of(_decode_loss, types, config, constants, ("G", "D")))
    return found
