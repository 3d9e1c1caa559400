"""Whether a decode is cheaper as a sparse gather or as a dense product, from the sizes and the machine's data sheet.

For each example and column of the output, a dense product does 2·L floating-point operations at the rate of GEMMs. A
gather of the K active latents reads K·itemsize bytes of W_dec at the rate of memory. The backward pass takes twice that
either way. So the dense product pays up to L/K = itemsize/2 · (operations a second)/(bytes a second). Example, bfloat16
on an H100: 2/2 · 989e12/3.35e12 = 295 latents for each active one.

On GPUs both rates are those of an H100 (SXM) in its data sheet; the figure is derived, not measured: 989 Tflop/s in
bfloat16 and float16, 495 in TF32 where PyTorch may use it for float32, else 67; 3.35 TB/s. Neither way reaches its
peak, and an A100's ratio is about half of it. On CPUs it is measured (benchmarks/README.md, "sparse or dense decode").
"""

from __future__ import annotations

import torch

from groupcc.ops._torch_private import read_once_when_compiled

__all__ = ["DENSE_UP_TO", "dense_decode", "dense_pays", "dense_up_to", "tf32_matters"]

DENSE_UP_TO = 4
"""On CPUs."""

_BYTES = 3.35e12
_FLOPS = {torch.bfloat16: 989e12, torch.float16: 989e12, torch.float32: 67e12, torch.float64: 67e12}
_TF32_FLOPS = 495e12


def dense_up_to(device: torch.device, dtype: torch.dtype) -> int:
    """Up to how many latents for each active one a decode is cheaper as a dense product."""
    if device.type != "cuda":
        return DENSE_UP_TO
    flops = _TF32_FLOPS if dtype == torch.float32 and _tf32() else _FLOPS[dtype]
    return int(dtype.itemsize / 2 * flops / _BYTES)


@read_once_when_compiled
def _tf32() -> bool:
    """Whether PyTorch multiplies float32 in TF32. To read `allow_tf32` is an error once `fp32_precision` was set."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def tf32_matters(W_dec_LGD: torch.Tensor) -> bool:
    """Whether the rate of GEMMs that `dense_pays` reads is that of TF32, if W_dec is float32."""
    return W_dec_LGD.is_cuda and _tf32()


def dense_pays(acts_NK: torch.Tensor, W_dec_LGD: torch.Tensor) -> str | None:
    """Why a decode is cheaper as a dense product over all latents, or None."""
    limit = dense_up_to(W_dec_LGD.device, W_dec_LGD.dtype)
    if W_dec_LGD.shape[0] > limit * acts_NK.shape[1]:
        return None
    at_most = f"up to {limit} latents for each active one"
    return f"{at_most}, a dense product costs less than a gather (groupcc/ops/_dense_decode.py)"


def dense_decode(acts_NK: torch.Tensor, indices_NK: torch.Tensor, W_dec_LGD: torch.Tensor) -> torch.Tensor:
    """Σ_k acts[n, k] · W_dec[indices[n, k]] as that product: [N, G, D]."""
    L, G, D = W_dec_LGD.shape
    dense_NL = acts_NK.new_zeros(len(acts_NK), L).scatter_add(1, indices_NK, acts_NK)
    return (dense_NL @ W_dec_LGD.reshape(L, G * D)).view(-1, G, D)
