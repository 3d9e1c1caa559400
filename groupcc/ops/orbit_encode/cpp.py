"""On the CPU, in blocks: some elements of some images are gathered into a scratch, and multiplied from there.

maps [B, S, H, W, D], points [G, P, 2], W_enc [G or 1, D, L], b_enc [L] → [B·P, L]. The gather is csrc/orbit_gather.cpp,
the products are PyTorch's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from groupcc.ops._cpp.launch import empty, why_not
from groupcc.ops._cpp.orbit_gather import as_points, gather, scatter, with_channels_inside
from groupcc.ops._dispatch import log_once
from groupcc.ops.orbit_encode import Args, Backward

__all__ = ["backward", "forward", "unsupported"]

FUSED_BELOW = 256
"""From this many latents on, the gather is noise beside the product, and blocks are as large as memory may be.

Written and read again by way of memory, an fp32 activation costs 8 bytes, its product 2·L operations: at the 45 GB/s
and 170 Gflop/s measured on two Zen 5 cores 15/L of the product's time, 6 % at L = 256. Below that, a scratch that
stays in cache pays (measured against all at once: 12.2 ms for 15.0 at L = 16, N = 648, G·D = 30720); above it, large
products do, each of which adds to the whole result.
"""

_IN_CACHE = 2 << 20  # bytes of scratch
_AT_MOST = 64 << 20
_ROWS = {True: 512, False: 2048}  # of the result a block has, fused or not: each block of rows reads all of W_enc


def unsupported(args: Args) -> str | None:
    return why_not((args.maps_BSHWD, args.W_enc_GDL, args.b_enc_L))


def forward(args: Args) -> torch.Tensor:
    maps_BSHWD, points_GP2, W_enc_GDL, b_enc_L, interpolation, relu = args
    maps, points = _read(maps_BSHWD, points_GP2, W_enc_GDL)
    (B, S, _, _, D), (G, P, _), L = maps.shape, points.shape, W_enc_GDL.shape[2]
    out = empty((B * P, L), maps.dtype)
    images, elements = _block(B, P, G, D, L, maps.dtype)
    scratch = empty((images * P * elements * D,), maps.dtype)
    for own in _ranges(B, images):
        rows = out[own.start * P : own.stop * P]
        for some in _ranges(G, elements):
            acts = _acts(scratch, len(rows), some, D)
            gather(maps[own, some if S > 1 else slice(None)], points, interpolation, acts, some)
            W_enc = W_enc_GDL[some].flatten(0, 1)
            if some.start == 0:
                torch.addmm(b_enc_L, acts.flatten(1), W_enc, out=rows)
            else:
                rows.addmm_(acts.flatten(1), W_enc)
    return out.relu_() if relu else out


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grad_NL, maps_BSHWD, points_GP2, W_enc_GDL, _, interpolation, need_maps = args
    # One block has some elements of all examples, so that each element's part of d_W_enc is one product.
    maps, points = _read(maps_BSHWD, points_GP2, W_enc_GDL)
    (_, S, _, _, D), (G, _, _), (N, L) = maps.shape, points.shape, grad_NL.shape
    d_W_enc = _gradient(W_enc_GDL)
    shared = need_maps and S == 1 and G > 1
    elements = _elements(G, N * D * maps.dtype.itemsize, _IN_CACHE if L < FUSED_BELOW else _AT_MOST)
    scratch = empty((N * elements * D,), maps.dtype)
    d_maps = empty(tuple(maps_BSHWD.shape), maps.dtype) if need_maps else maps.new_empty(0)
    d_own = d_maps[:, : maps.shape[1]] if need_maps else d_maps
    if need_maps:
        d_maps[:, maps.shape[1] :] = 0
    sums: torch.Tensor | None = None
    for some in _ranges(G, elements):
        acts = _acts(scratch, N, some, D)
        own = some if S > 1 else slice(None)
        gather(maps[:, own], points, interpolation, acts, some)
        torch.mm(acts.flatten(1).t(), grad_NL, out=d_W_enc[some].flatten(0, 1))
        if need_maps:
            torch.mm(grad_NL, W_enc_GDL[some].flatten(0, 1).t(), out=acts.flatten(1))
            scatter(acts, points[some], interpolation, d_own[:, own])
            if shared and elements < G:
                # Each block of elements has its share in the one map.
                wide = d_own.to(torch.promote_types(maps.dtype, torch.float32))
                sums = wide.clone() if sums is None else sums.add_(wide)
    if sums is not None:
        d_own.copy_(sums)
    if d_W_enc.stride() != torch.empty_like(W_enc_GDL).stride():
        d_W_enc = torch.empty_like(W_enc_GDL).copy_(d_W_enc)
    return d_maps, d_W_enc, grad_NL.sum(0)


def _read(
    maps_BSHWD: torch.Tensor, points_GP2: torch.Tensor, W_enc_GDL: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The maps and points that the encoder reads: those of element 0 where it has one block."""
    blocks = W_enc_GDL.shape[0]
    return with_channels_inside(maps_BSHWD[:, :blocks]), as_points(points_GP2[:blocks])


def _block(B: int, P: int, G: int, D: int, L: int, dtype: torch.dtype) -> tuple[int, int]:
    """How many images and elements are gathered at a time.

    In bfloat16 and float16 all elements, so that a result is rounded once, not after each block of elements.
    """
    fused = L < FUSED_BELOW
    element_bytes = max(P * D * dtype.itemsize, 1)  # of one image
    if dtype.itemsize < 4:
        images = max(1, min(B, _AT_MOST // max(G * element_bytes, 1)))
        elements = max(G, 1)
    else:
        images = max(1, min(B, _ROWS[fused] // max(P, 1)))
        elements = _elements(G, images * element_bytes, _IN_CACHE if fused else _AT_MOST)
    why = "to stay in cache" if fused else "as the product outweighs the gather"
    log_once(f"orbit_encode on cpp, L = {L}, {dtype}: blocks of {images * P} examples under {elements} of {G}, {why}.")
    return images, elements


def _elements(G: int, element_bytes: int, at_most: int) -> int:
    return max(1, min(G, at_most // max(element_bytes, 1)))


def _acts(scratch: torch.Tensor, N: int, elements: slice, D: int) -> torch.Tensor:
    """The scratch as the activations [N, elements, D] of a block."""
    shape = (N, elements.stop - elements.start, D)
    return scratch[: math.prod(shape)].view(shape)


def _ranges(count: int, step: int) -> Iterator[slice]:
    """At least one, though it be empty: the first block of elements writes the result, those after it add to it."""
    for first in range(0, max(count, 1), step):
        yield slice(first, min(first + step, count))


def _gradient(W_enc_GDL: torch.Tensor) -> torch.Tensor:
    """Memory for the gradient, latent-major where W_enc is."""
    G, D, L = W_enc_GDL.shape
    if W_enc_GDL.permute(2, 0, 1).is_contiguous():
        return empty((L, G, D), W_enc_GDL.dtype).permute(1, 2, 0)
    return empty((G, D, L), W_enc_GDL.dtype)
