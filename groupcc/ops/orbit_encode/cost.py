"""Whether orbit_encode on GPUs gathers inside the product or once before it.

Let A be the bytes of the aligned activations, T the taps of a point and t = ⌈L / LATENTS_A_TILE⌉ the tiles of latents.
Fused, each tile gathers anew: t·T·A bytes out of L2. Materialised, T·A bytes are gathered once, A are written to memory
and read again, and each tile of the GEMM reads A from L2. A byte of memory costs about 2 bytes of L2 (derived from
vendors' figures, not measured). So fused pays while t·T ≤ T + t + 4: two tiles for bilinear, one for the B-spline.
Example, bilinear (T = 4): t = 2 gives 8 ≤ 10, t = 3 gives 12 > 11.
"""

from __future__ import annotations

import torch

__all__ = ["LATENTS_A_TILE", "fused_gather"]

LATENTS_A_TILE = {2: 256, 4: 64, 8: 64}
"""How many latents a tile of orbit_encode's kernel has, by the bytes of an element: what registers hold."""


def fused_gather(L: int, taps: int, dtype: torch.dtype) -> bool:
    """Whether orbit_encode gathers inside the product, rather than once before it."""
    tiles = -(-L // LATENTS_A_TILE[dtype.itemsize])
    return tiles * taps <= taps + tiles + 4
