"""Triton: maps [B, S, H, W, D], points [G, P, 2], W_enc [G or 1, D, L], b_enc [L] → [B·P, L], and back.

There are two forms, chosen by L (groupcc/ops/orbit_encode/cost.py). For few latents the gather is part of the product,
and the aligned activations never leave registers. For many latents each tile of latents would gather anew, so the
activations of a block of images are gathered first and multiplied by PyTorch. The gradients gather again, in blocks.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from groupcc.ops._dispatch import log_once
from groupcc.ops._triton import launch
from groupcc.ops._triton.orbit_gather import gather, scatter
from groupcc.ops.orbit_encode import Args, Backward
from groupcc.ops.orbit_encode.cost import LATENTS_A_TILE, fused_gather
from groupcc.ops.orbit_gather import tap_table, too_large

__all__ = ["backward", "builds", "forward", "unsupported"]

BLOCK_BYTES = 128 << 20
"""About how much of the aligned activations exists at a time."""
BLOCK_ROWS = 2048
"""As many rows are multiplied at a time at least, so that reading W_enc again for each block costs little."""


def _configs(*sizes: tuple[int, int, int, int]) -> list[triton.Config]:
    return [
        triton.Config({"BLOCK_N": n, "BLOCK_L": latents, "BLOCK_D": d}, num_warps=warps, num_stages=1)
        for n, latents, d, warps in sizes
    ]


# The loop over taps is a loop in the binary: unrolled, each tap holds registers of its own, and they spill.
_HALF = _configs((128, LATENTS_A_TILE[2], 32, 8), (128, LATENTS_A_TILE[2] // 2, 64, 8))
_FULL = _configs((64, LATENTS_A_TILE[4], 32, 4))


def unsupported(args: Args) -> str | None:
    maps, points = args.maps_BSHWD, args.points_GP2
    rows = maps.shape[0] * points.shape[1]
    if rows >= 2**31:
        return f"rows ({rows}) must number less than 2^31"
    return launch.why_not((maps, args.W_enc_GDL, args.b_enc_L)) or too_large(maps, points)


@triton.jit
def _encode(
    maps,
    index,
    weight,
    W_enc,
    b_enc,
    out,
    N,
    P,
    blocks,
    pixels,
    D,
    L,
    stride_g,
    stride_d,
    stride_l,
    TAPS: tl.constexpr,
    RELU: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """out[n, l] = Σ_g Σ_d a[n, g, d] · W_enc[g, d, l] + b_enc[l] with a[b·P + p, g] = Σ_t weight · maps[b, index].

    Taps [P·blocks, TAPS] lie at row p·blocks + g, maps are [B, pixels, D]. Programs that follow each other have the
    same rows, whose pixels they share in L2.
    """
    tiles = tl.cdiv(L, BLOCK_L)
    program = tl.program_id(0)
    n = program // tiles * BLOCK_N + tl.arange(0, BLOCK_N)
    latent = program % tiles * BLOCK_L + tl.arange(0, BLOCK_L)
    image = (n // P).to(tl.int64) * pixels
    acc = tl.zeros((BLOCK_N, BLOCK_L), weight.dtype.element_ty)
    for g in range(blocks):
        tap = (n % P * blocks + g) * TAPS
        block = W_enc + (tl.zeros((1,), tl.int64) + g) * stride_g
        for start in range(0, D, BLOCK_D):
            d = start + tl.arange(0, BLOCK_D)
            W = tl.load(
                block[:, None] + d.to(tl.int64)[:, None] * stride_d + latent.to(tl.int64)[None, :] * stride_l,
                mask=(d < D)[:, None] & (latent < L)[None, :],
                other=0.0,
            )
            acts = tl.zeros((BLOCK_N, BLOCK_D), weight.dtype.element_ty)
            for t in range(TAPS):
                share = tl.load(weight + tap + t, mask=n < N, other=0.0)
                pixel = tl.load(index + tap + t, mask=n < N, other=0)
                read = (share != 0.0)[:, None] & (d < D)[None, :]  # NaN in a pixel without a share does not spread
                value = tl.load(maps + ((image + pixel) * D)[:, None] + d[None, :], mask=read, other=0.0)
                acts += share[:, None] * value.to(acts.dtype)
            acc = launch.dot(acts.to(W.dtype), W, acc)
    acc += tl.load(b_enc + latent, mask=latent < L, other=0.0).to(acc.dtype)[None, :]
    if RELU:
        acc = tl.where(acc <= 0.0, 0.0, acc)  # NaN stays
    written = (n < N)[:, None] & (latent < L)[None, :]
    tl.store(out + n.to(tl.int64)[:, None] * L + latent[None, :], acc, mask=written)


_encode_half = launch.tuned(_HALF, key=["L", "TAPS"])(_encode)
_encode_full = launch.tuned(_FULL, key=["L", "TAPS"])(_encode)


def forward(args: Args) -> torch.Tensor:
    maps_BSHWD, points_GP2, W_enc_GDL, b_enc_L, interpolation, relu = args
    blocks, _, L = W_enc_GDL.shape
    maps, points = maps_BSHWD[:, :blocks].contiguous(), points_GP2[:blocks]
    B, S, H, W, _ = maps.shape
    table = tap_table(points, S, H, W, interpolation, torch.promote_types(maps.dtype, torch.float32), maps.device)
    out = maps.new_empty(B * points.shape[1], L)
    fused = fused_gather(L, table.index.shape[1], maps.dtype)
    log_once(
        f"orbit_encode: for {L} latents the gather is {'part of the product' if fused else 'made first, in blocks'}, "
        "by its cost (groupcc/ops/orbit_encode/cost.py)."
    )
    if out.numel() == 0:
        return out
    if fused:
        _launch(maps, points.shape[1], table, W_enc_GDL, b_enc_L.contiguous(), relu, out)
    else:
        _materialised(maps, points, W_enc_GDL, b_enc_L, interpolation, relu, out)
    return out


def _launch(
    maps: torch.Tensor,
    P: int,
    table: Any,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    relu: bool,
    out: torch.Tensor,
) -> None:
    N, L = out.shape
    blocks, D, _ = W_enc.shape
    kernel = _encode_full if maps.dtype.itemsize > 2 else _encode_half
    sizes = (N, P, blocks, table.pixels, D, L, *W_enc.stride(), table.index.shape[1], relu)

    def grid(meta: dict[str, Any]) -> tuple[int]:
        return (triton.cdiv(N, meta["BLOCK_N"]) * triton.cdiv(L, meta["BLOCK_L"]),)

    kernel[grid](maps, table.index, table.weight, W_enc, b_enc, out, *sizes)


def _materialised(
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    interpolation: str,
    relu: bool,
    out: torch.Tensor,
) -> None:
    P = points.shape[1]
    W_flat = W_enc.flatten(0, 1)
    for first, last in _image_blocks(maps.shape[0], P, W_flat.shape[0] * maps.itemsize):
        acts = gather(maps[first:last], points, interpolation)
        torch.addmm(b_enc, acts.flatten(1), W_flat, out=out[first * P : last * P])
    if relu:
        out.relu_()


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_NL, maps_BSHWD, points_GP2, W_enc_GDL, _, interpolation, need_maps = args
    blocks, D, L = W_enc_GDL.shape
    maps, points = maps_BSHWD[:, :blocks], points_GP2[:blocks]
    B, S, H, W, _ = maps.shape
    N, P = grad_NL.shape[0], points.shape[1]
    # Whole sums at a time, elements for d_W_enc and images for d_maps: no partial one is ever rounded.
    d_W_enc = torch.empty_like(W_enc_GDL)
    elements = max(1, BLOCK_BYTES // max(N * D * maps.itemsize, 1))
    for g in range(0, blocks, elements):
        own = maps[:, g : g + elements] if S > 1 else maps
        acts = gather(own, points[g : g + elements], interpolation)
        d_W_enc[g : g + elements] = (acts.flatten(1).T @ grad_NL).view(acts.shape[1], D, L)
    d_maps = maps.new_zeros(maps_BSHWD.shape if need_maps else (0,))
    W_flat = W_enc_GDL.flatten(0, 1)
    for first, last in _image_blocks(B if need_maps else 0, P, blocks * D * maps.itemsize):
        d_acts = (grad_NL[first * P : last * P] @ W_flat.T).view((last - first) * P, blocks, D)
        shape = (last - first, S, H, W, D)
        d_maps[first:last, :blocks] = scatter(d_acts, points, shape, interpolation)
    return d_maps, d_W_enc, grad_NL.sum(0)


def _image_blocks(B: int, P: int, row_bytes: int) -> list[tuple[int, int]]:
    """First and last image of each block: about BLOCK_BYTES of aligned activations, but BLOCK_ROWS rows at least."""
    rows = max(BLOCK_ROWS, BLOCK_BYTES // max(row_bytes, 1))
    images = max(1, rows // max(P, 1))
    return [(first, min(first + images, B)) for first in range(0, B, images)]


def builds() -> list[launch.Build]:
    """Each tile for D = 480, W_enc latent-major, as models keep it, and row-major."""
    found = []
    sizes = ("N", "P", "blocks", "pixels", "D", "L", "stride_g", "stride_d", "stride_l")
    for dtype in ("bf16", "fp16", "fp32"):
        half = dtype != "fp32"
        for config in _HALF if half else _FULL:
            for interpolation, taps in (("bilinear", 4), ("bspline", 9)):
                for order, unit in (("latent-major", "stride_d"), ("row-major", "stride_l")):
                    signature = {"maps": f"*{dtype}", "index": "*i32", "weight": "*fp32"}
                    signature |= dict.fromkeys(("W_enc", "b_enc", "out"), f"*{dtype}")
                    signature |= {name: "constexpr" if name == unit else "i32" for name in sizes}
                    signature |= dict.fromkeys(("TAPS", "RELU", *config.kwargs), "constexpr")
                    tile = "x".join(str(size) for size in config.kwargs.values())
                    build = launch.Build(
                        f"orbit_encode {interpolation} {dtype} {order} {tile}/{config.num_warps}",
                        _encode,
                        signature,
                        {unit: 1, "TAPS": taps, "RELU": True, **config.kwargs},
                        config.num_warps,
                        config.num_stages,
                        tuple(name for name in ("D", "L", "stride_g", "stride_d", "stride_l") if name != unit),
                        tensor_cores=half,
                    )
                    found.append(build)
    return found
