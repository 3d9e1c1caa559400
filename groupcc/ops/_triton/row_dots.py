"""Products of each example's row with the rows of its active latents, in Triton: the gradient of latent acts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import launch
from groupcc.ops._triton.latent_sum import accumulator

_TILE_BYTES = 512  # one 16-byte load for each thread of a warp
_L2_BYTES = 16 << 20  # of a table's column slab; an H100's L2 has 50 MB

# On NVIDIA's GPUs a row of a tile is one warp's in all of them: which is fastest does not decide the order of sums.
_CONFIGS = (
    triton.Config({"BLOCK_K": 16}, num_warps=4),
    triton.Config({"BLOCK_K": 8}, num_warps=1),
    triton.Config({"BLOCK_K": 8}, num_warps=2),
    triton.Config({"BLOCK_K": 32}, num_warps=4),
)


def row_dots(
    rows: torch.Tensor, indices: torch.Tensor, table: torch.Tensor, scale: torch.Tensor | None = None
) -> torch.Tensor:
    """out[n, k] = Σ_m scale[m] · rows[n, m] · table[indices[n, k], m]: [N, M], int64 [N, K], [L, M] → [N, K].

    `scale` [M], fp32. Sums in fp32, of the dtype of `table` at the end. A program takes one example and a slab of M;
    the slabs' parts are added by torch.sum. Deterministic, no atomics, no [N·K, M] buffer.
    """
    (N, M), K, L = rows.shape, indices.shape[1], table.shape[0]
    rows, indices, table = rows.contiguous(), indices.contiguous(), table.contiguous()
    tile = _TILE_BYTES // table.element_size()
    slab = _slab(L, M, tile, table.element_size())
    n_slabs = max(triton.cdiv(M, slab), 1)
    out = table.new_empty(n_slabs, N, K, dtype=table.dtype if n_slabs == 1 else accumulator(table.dtype))
    if N and K:
        _row_dots[(N, n_slabs)](
            rows, indices, table, scale, out, N, K, M, slab, launch.next_power_of_2(L), BLOCK_M=tile
        )
    return out[0] if n_slabs == 1 else out.sum(0).to(table.dtype)


def _slab(L: int, M: int, tile: int, itemsize: int) -> int:
    """How many columns one program takes: so many that the slab of all L rows stays in the L2, whole tiles."""
    return max(min(_L2_BYTES // max(L * itemsize, 1), M) // tile, 1) * tile


# rows [N, M], indices int64 [N, K], table [L, M], scale fp32 [M] → out [slabs, N, K].
# Examples run fastest in the grid: a slab of the table stays in the L2 while every example passes over it.
@launch.tuned(_CONFIGS, key=["about_L", "M"])
@triton.jit
def _row_dots(rows, indices, table, scale, out, N, K, M, slab, about_L, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    begin = tl.program_id(1) * slab
    end = tl.minimum(begin + slab, M)
    ACC: tl.constexpr = tl.float64 if table.dtype.element_ty == tl.float64 else tl.float32
    for first in range(0, K, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        chosen = tl.load(indices + n * K + k, mask=k < K, other=0)
        acc = tl.zeros([BLOCK_K, BLOCK_M], ACC)
        for start in range(begin, end, BLOCK_M):
            m = start + tl.arange(0, BLOCK_M)
            row = tl.load(rows + n * M + m, mask=m < end, other=0).to(ACC)
            if scale is not None:
                row *= tl.load(scale + m, mask=m < end, other=0)
            inside = (k < K)[:, None] & (m < end)[None, :]
            tile = tl.load(table + ((chosen * M)[:, None] + m[None, :]), mask=inside, other=0)
            acc += row[None, :] * tile.to(ACC)
        tl.store(out + ((tl.program_id(1).to(tl.int64) * N + n) * K + k), tl.sum(acc, axis=1), mask=k < K)


def builds() -> list[launch.Build]:
    """Every configuration in bf16 and fp32, with the sums of a slab as output; the first also in fp16 and unscaled."""
    found = []
    for config, dtype, out, left_out in [
        *((config, dtype, "fp32", {}) for dtype in ("bf16", "fp32") for config in _CONFIGS),
        (_CONFIGS[0], "fp16", "fp16", {}),
        (_CONFIGS[0], "bf16", "bf16", {"scale": None}),
    ]:
        types = {
            **dict.fromkeys(("rows", "table"), f"*{dtype}"),
            **{"indices": "*i64", "scale": "*fp32", "out": f"*{out}"},
            **dict.fromkeys(("N", "K", "M", "slab", "about_L"), "i32"),
        }
        tile = {"BLOCK_M": _TILE_BYTES * 8 // int(dtype[-2:])}
        found.append(launch.Build.of(_row_dots, types, config, tile | left_out, ("M", "slab")))
    return found
