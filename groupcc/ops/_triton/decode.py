"""The kernel of sparse_decode, which encode_topk's gradient launches too."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from groupcc.ops._triton import launch
from groupcc.ops._triton.latent_sum import TILES, sum_rows


def decode(
    acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, b_dec_GD: torch.Tensor | None
) -> torch.Tensor:
    """Σ_k acts[n, k] · W_dec[indices[n, k]] + b_dec: [N, G, D]."""
    acts, indices, W_dec = acts_NK.contiguous(), indices_NK.contiguous(), W_dec_LGD.contiguous()
    b_dec = None if b_dec_GD is None else b_dec_GD.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    M, size = G * D, W_dec.element_size()
    out = W_dec.new_empty(N, G, D)
    if out.numel():
        _decode[lambda meta: (N, triton.cdiv(M * size, meta["TILE_BYTES"]))](
            acts, indices, W_dec, b_dec, out, K, M, launch.next_power_of_2(L)
        )
    return out


# acts [N, K], indices int64 [N, K], W_dec [L, M], b_dec [M] → out [N, M], with M = G·D.
# Examples run fastest in the grid: a tile of W_dec's columns stays in the L2 while every example passes over it.
@launch.tuned(TILES, key=["about_L", "M"])
@triton.jit
def _decode(acts, indices, W_dec, b_dec, out, K, M, about_L, TILE_BYTES: tl.constexpr, BLOCK_E: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    BLOCK: tl.constexpr = TILE_BYTES * 8 // W_dec.dtype.element_ty.primitive_bitwidth
    m = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = m < M
    acc = sum_rows(acts, indices, n * K, n * K + K, W_dec, M, m, inside, BLOCK_E)
    if b_dec is not None:
        acc += tl.load(b_dec + m, mask=inside, other=0)
    tl.store(out + n * M + m, acc, mask=inside)


def builds() -> list[launch.Build]:
    """Every tile in bf16 and fp32; the first also in fp16 and without a bias."""
    found = []
    for config, dtype, left_out in [
        *((config, dtype, {}) for dtype in ("bf16", "fp32") for config in TILES),
        (TILES[0], "fp16", {}),
        (TILES[0], "bf16", {"b_dec": None}),
    ]:
        types = {
            **dict.fromkeys(("acts", "W_dec", "b_dec", "out"), f"*{dtype}"),
            "indices": "*i64",
            **dict.fromkeys(("K", "M", "about_L"), "i32"),
        }
        found.append(launch.Build.of(_decode, types, config, left_out, ("M",)))
    return found
