"""Which of two ways to the same result `auto` takes, from the sizes and the machine's data sheet.

Sparse or dense decode. For each example and column of the output, a dense product does 2·L floating-point operations
at the rate of GEMMs, a gather of the K active latents reads K·itemsize bytes of W_dec at the rate of memory; the
backward pass is twice that on either side. So dense pays up to
L/K = itemsize/2 · (operations a second)/(bytes a second).

On GPUs both rates are those of an H100 (SXM) in its data sheet; the figure is derived, not measured: 989 Tflop/s in
bfloat16 and float16, 495 in TF32 where PyTorch may use it for float32, else 67; 3.35 TB/s. Neither way reaches its
peak, and an A100's ratio is about half of it. On CPUs it is measured (benchmarks/README.md, "sparse or dense decode").

Fused or materialised gather in orbit_encode on GPUs. Let A be the bytes of the aligned activations, T the taps of a
point and t = ⌈L / LATENTS_A_TILE⌉ the tiles of latents. Fused, each tile gathers anew: t·T·A bytes out of L2.
Materialised, T·A are gathered once, A are written to memory and read again, and each tile of the GEMM reads A from L2.
With a byte of memory at 2 bytes of L2 (derived from vendors' figures, not measured) fused pays while
t·T ≤ T + t + 4: two tiles for bilinear, one for the B-spline.
"""

from __future__ import annotations

import torch

__all__ = ["DENSE_UP_TO", "LATENTS_A_TILE", "dense_decode", "dense_up_to", "fused_gather"]

DENSE_UP_TO = 4
"""On CPUs."""

LATENTS_A_TILE = {2: 256, 4: 64, 8: 64}
"""How many latents a tile of orbit_encode's kernel has, by the bytes of an element: what registers hold."""

_BYTES = 3.35e12
_FLOPS = {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12, torch.float64: 67e12}
_TF32_FLOPS = 495e12


def dense_up_to(device: torch.device, dtype: torch.dtype) -> int:
    """Up to how many latents for each active one a decode is cheaper as a dense product."""
    if device.type != "cuda":
        return DENSE_UP_TO
    flops = _TF32_FLOPS if dtype == torch.float32 and _tf32() else _FLOPS[dtype]
    return int(dtype.itemsize / 2 * flops / _BYTES)


def _tf32() -> bool:
    """Whether PyTorch multiplies float32 in TF32. To read `allow_tf32` is an error once `fp32_precision` was set."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# Dynamo cannot trace the read, and takes the result as a constant (groupcc/ops/backend.py).
_tf32._dynamo_marked_constant = True  # type: ignore[attr-defined]


def dense_decode(acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor, *_: object) -> str | None:
    """Why a decode, of arguments that begin so, is cheaper as a dense product over all latents, or None."""
    limit = dense_up_to(W_dec_LGD.device, W_dec_LGD.dtype)
    if W_dec_LGD.shape[0] > limit * acts_NK.shape[1]:
        return None
    return f"up to {limit} latents for each active one, a dense product costs less than a gather (groupcc/ops/cost.py)"


def fused_gather(L: int, taps: int, dtype: torch.dtype) -> bool:
    """Whether orbit_encode gathers inside the product, rather than once before it."""
    tiles = -(-L // LATENTS_A_TILE[dtype.itemsize])
    return tiles * taps <= taps + tiles + 4
