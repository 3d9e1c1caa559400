"""Batched products of float32 matrices on the CPU, by the faster of the two libraries that PyTorch brings."""

from __future__ import annotations

from functools import lru_cache

import torch

from groupcc.ops._cpp.launch import _C
from groupcc.ops._torch_private import onednn_product

_LEAST_MULTIPLICATIONS = 1 << 20
"""Below this a call of oneDNN costs more than it saves."""


@lru_cache(maxsize=1)
def _onednn_is_faster() -> bool:
    """PyTorch multiplies float32 by MKL, which on CPUs not made by Intel runs its AVX2 code even where they have
    AVX-512: 2.2 to 2.5 times slower than oneDNN there. Decided by the CPU, not by a measurement, so that a machine
    always gets the same bits."""
    if _C.cpu_is_intel() or not torch.backends.mkl.is_available() or "avx512" not in _C.available_isas():
        return False
    try:
        # Whatever the default dtype and device are just now: the answer is kept.
        ones = torch.ones(4, 3, dtype=torch.float32, device="cpu")
        onednn_product(ones, ones)
    except (AttributeError, RuntimeError):  # an operator that PyTorch does not document: it may be gone one day
        return False
    return True


def bmm(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """out[i] = a[i] b[i] for a [B, M, K], b [B, K, N], out [B, M, N], any strides of a and b."""
    B, M, K = a.shape
    if a.dtype == torch.float32 and M * K * b.shape[2] >= _LEAST_MULTIPLICATIONS and _onednn_is_faster():
        for i in range(B):
            out[i] = onednn_product(a[i], b[i].t())
    else:
        torch.bmm(a, b, out=out)
