"""Sums of rows by latent in Triton: the gradient of a dictionary from a batch's active entries.

`sum_rows` is the inner loop that the decoders share; `latent_sum` launches its latent-major use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import launch
from groupcc.ops._triton.latent_major import latent_major

# A tile of 512 bytes a warp is one 16-byte load a thread, so that a thread holds whole columns of the sum and exchanges
# nothing; BLOCK_E rows are under way at once. Narrow tiles are for tables so long that a wide one leaves the L2.
# BLOCK_E is the same in all, or which tile a search happened to find fastest would decide the order of sums.
TILES = (
    triton.Config({"TILE_BYTES": 2048, "BLOCK_E": 8}, num_warps=4),
    triton.Config({"TILE_BYTES": 1024, "BLOCK_E": 8}, num_warps=2),
    triton.Config({"TILE_BYTES": 512, "BLOCK_E": 8}, num_warps=1),
)

_SEGMENT = 128  # entries that one program sums, at least; a longer latent is shared between programs
_SEGMENTS = 512  # about how many segments a batch's entries may fill: bounds the partial sums in memory


class LatentSums(NamedTuple):
    """What `latent_sum` returns."""

    rows: torch.Tensor
    """[L, M] in the dtype of `rows`: Σ values[n, k] · rows[n] over the entries of each latent."""
    columns: torch.Tensor | None
    """[M]: Σ_n rows[n], if asked for."""
    values: torch.Tensor | None
    """[L]: Σ values[n, k] over the entries of each latent, if asked for."""


def latent_sum(
    values: torch.Tensor,
    indices: torch.Tensor,
    rows: torch.Tensor,
    L: int,
    *,
    scale: torch.Tensor | None = None,
    columns: bool = False,
    value_sums: bool = False,
) -> LatentSums:
    """out[l] = scale · Σ_{n,k: indices[n,k] = l} values[n, k] · rows[n]: [N, K], int64 [N, K], [N, M] → [L, M].

    `scale` [M], fp32, multiplies every sum over rows, `columns` too. Sums in fp32. Every output element is written
    once, rows of latents without entries as zeros; entries of value 0 are left out. One program takes a segment of a
    latent's entries and a tile of M; the parts of a long latent are added in a second pass. Deterministic, no atomics,
    no [N·K, M] buffer.
    """
    (N, K), M = values.shape, rows.shape[1]
    values, rows = values.contiguous(), rows.contiguous()
    order, starts = latent_major(indices, L, values != 0)
    weights_E, row_E = values.flatten()[order], order // max(K, 1)
    begins, ends = starts[:-1], starts[1:]
    out_values = _value_sums(weights_E, starts, L) if value_sums else None
    if columns:  # one latent more, active on every example with value 1
        weights_E = torch.cat([weights_E, weights_E.new_ones(N)])
        row_E = torch.cat([row_E, torch.arange(N, device=row_E.device)])
        begins = torch.cat([begins, begins.new_full((1,), N * K)])
        ends = torch.cat([ends, ends.new_full((1,), N * K + N)])
    out = rows.new_empty(L, M)
    out_columns = rows.new_empty(M) if columns else None
    size = max(_SEGMENT, launch.next_power_of_2(len(weights_E) // _SEGMENTS))
    segments, joins = _segments(begins, ends, len(weights_E), size)
    acc = accumulator(rows.dtype)
    partials = rows.new_empty(2 * len(joins), M, dtype=acc)
    _launch(weights_E, row_E, rows, segments, scale, partials, out, out_columns)
    if len(joins):
        part = torch.arange(len(partials), device=rows.device)
        _launch(torch.ones_like(part, dtype=acc), part, partials, joins, scale, partials, out, out_columns)
    return LatentSums(out, out_columns, out_values)


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype that sums of `dtype` are kept in."""
    return torch.promote_types(dtype, torch.float32)


def too_wide(table: torch.Tensor) -> str | None:
    """Why a table [L, ...] has too many columns for these kernels' grids, or None: at most 65,535 tiles.

    Of partial sums, whose elements are the widest that the kernels read.
    """
    limit = 65535 * min(config.kwargs["TILE_BYTES"] for config in TILES) // accumulator(table.dtype).itemsize
    M = table[:1].numel()
    return f"rows of {M} elements, the Triton kernels take at most {limit}" if limit < M else None


def _segments(begins: torch.Tensor, ends: torch.Tensor, n_entries: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cuts each latent's entries [begin, end) into segments of at most `size`: (segments, joins), int64 [·, 4].

    Columns: latent, begin, end, and the row of the partial sums or −1 where the latent has one segment only. `joins`
    has the long latents, [begin, end) their rows of the partial sums. Both are as long as they can ever be, so that
    nothing waits for the device; what is left over is for latent −1.
    """
    device, n_latents = begins.device, len(begins)
    n_long = n_entries // size  # a latent of c > size entries has at most 2·⌊c / size⌋ segments
    counts = ((ends - begins + size - 1) // size).clamp(min=1)
    long = counts > 1
    last = counts.cumsum(0)
    slots = torch.arange(n_latents + n_long, device=device)
    latent = torch.searchsorted(last, slots, right=True)
    spare = latent == n_latents
    latent = latent.clamp(max=n_latents - 1)
    part = slots - (last - counts)[latent]
    begin = begins[latent] + part * size
    end = torch.minimum(begin + size, ends[latent])
    first_partial = (counts * long).cumsum(0) - counts * long
    partial = torch.where(long[latent], first_partial[latent] + part, -1)
    segments = torch.stack([latent.masked_fill(spare, -1), begin, end, partial], dim=1)

    place = torch.where(long, long.cumsum(0) - 1, n_long)
    joins = torch.full((n_long + 1, 4), -1, device=device)
    latents = torch.arange(n_latents, device=device)
    whole = torch.stack([latents, first_partial, first_partial + counts, torch.full_like(latents, -1)], dim=1)
    joins[place] = whole  # all short latents write the last row, which is dropped
    return segments, joins[:n_long]


def _launch(
    weights: torch.Tensor,
    rows: torch.Tensor,
    table: torch.Tensor,
    segments: torch.Tensor,
    scale: torch.Tensor | None,
    partials: torch.Tensor,
    out: torch.Tensor,
    columns: torch.Tensor | None,
) -> None:
    L, M = out.shape
    size = table.element_size()
    if M:
        _latent_sum[lambda meta: (len(segments), triton.cdiv(M * size, meta["TILE_BYTES"]))](
            weights, rows, table, segments, scale, partials, out, columns, L, M, launch.next_power_of_2(L)
        )


@triton.jit
def sum_rows(weights, rows, begin, end, table, M, offsets, inside, BLOCK_E: tl.constexpr):
    """Σ_e weights[e] · table[rows[e]·M + offsets] over e in [begin, end): tiles [A] → [A].

    Summed in fp32 (fp64 for fp64). Rows of weight 0 are not read.
    """
    ACC: tl.constexpr = tl.float64 if table.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros(offsets.shape, ACC)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        weight = tl.load(weights + e, mask=e < end, other=0)
        row = tl.load(rows + e, mask=e < end, other=0)
        read = (weight != 0)[:, None] & inside[None, :]
        tile = tl.load(table + ((row * M)[:, None] + offsets[None, :]), mask=read, other=0)
        acc += tl.sum(weight.to(ACC)[:, None] * tile.to(ACC), axis=0)
    return acc


# weights [E], rows int64 [E], table [·, M], segments int64 [S, 4] → out [L, M], columns [M] or partials [·, M].
# Segments run fastest in the grid: a tile of all the table's rows stays in the L2 while every latent passes over it.
@launch.tuned(TILES, key=["about_L", "M"])
@triton.jit
def _latent_sum(
    weights,
    rows,
    table,
    segments,
    scale,
    partials,
    out,
    columns,
    L,
    M,
    about_L,
    TILE_BYTES: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    segment = segments + tl.program_id(0).to(tl.int64) * 4
    latent, begin, end = tl.load(segment), tl.load(segment + 1), tl.load(segment + 2)
    partial = tl.load(segment + 3)
    BLOCK: tl.constexpr = TILE_BYTES * 8 // table.dtype.element_ty.primitive_bitwidth
    m = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    if latent >= 0:
        acc = sum_rows(weights, rows, begin, end, table, M, m, inside, BLOCK_E)
        if partial >= 0:
            tl.store(partials + partial * M + m, acc, mask=inside)
        else:
            if scale is not None:
                acc *= tl.load(scale + m, mask=inside, other=0)
            if latent < L:
                tl.store(out + latent * M + m, acc, mask=inside)
            elif columns is not None:
                tl.store(columns + m, acc, mask=inside)


def _value_sums(weights: torch.Tensor, starts: torch.Tensor, L: int) -> torch.Tensor:
    out = weights.new_empty(L)
    if L:
        _value_sum[(L,)](weights, starts, out, BLOCK_E=256, num_warps=1)
    return out


# weights [E], starts int64 [L + 1] → out [L].
@launch.fused
@triton.jit
def _value_sum(weights, starts, out, BLOCK_E: tl.constexpr):
    latent = tl.program_id(0)
    begin, end = tl.load(starts + latent), tl.load(starts + latent + 1)
    ACC: tl.constexpr = tl.float64 if weights.dtype.element_ty == tl.float64 else tl.float32
    acc = tl.zeros([BLOCK_E], ACC)
    for start in range(begin, end, BLOCK_E):
        e = start + tl.arange(0, BLOCK_E)
        acc += tl.load(weights + e, mask=e < end, other=0).to(ACC)
    tl.store(out + latent, tl.sum(acc))


def builds() -> list[launch.Build]:
    """Every tile in bf16 and fp32; the first in fp16, without scale and columns, and as the second pass has it."""
    found = []
    for config, dtype, table, left_out in [
        *((config, dtype, dtype, {}) for dtype in ("bf16", "fp32") for config in TILES),
        (TILES[0], "fp16", "fp16", {}),
        (TILES[0], "bf16", "bf16", {"scale": None, "columns": None}),
        (TILES[0], "bf16", "fp32", {}),
    ]:
        types = {
            **dict.fromkeys(("weights", "table"), f"*{table}"),
            **dict.fromkeys(("rows", "segments"), "*i64"),
            **dict.fromkeys(("scale", "partials"), "*fp32"),
            **dict.fromkeys(("out", "columns"), f"*{dtype}"),
            **dict.fromkeys(("L", "M", "about_L"), "i32"),
        }
        found.append(launch.Build.of(_latent_sum, types, config, left_out, ("M",)))
    types = {"weights": "*bf16", "starts": "*i64", "out": "*bf16"}
    return [*found, launch.Build.of(_value_sum, types, triton.Config({"BLOCK_E": 256}, num_warps=1))]
