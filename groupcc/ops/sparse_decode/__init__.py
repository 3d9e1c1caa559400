"""sparse_decode: active latents → reconstruction of every block."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops._checks import check_latents
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._dense_decode import dense_pays, tf32_matters
from groupcc.ops.sparse_decode.reference import Args, sparse_decode_reference

__all__ = ["OP", "Args", "Backward", "sparse_decode"]


class Backward(NamedTuple):
    """What the gradients of a decode are made from. That of its output is scale[g] · grad[n, g, d], or grad alone."""

    grad_NGD: torch.Tensor
    scale_G: torch.Tensor | None
    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    W_dec_LGD: torch.Tensor
    need_bias: bool


class _SparseDecode(Op[Args, torch.Tensor]):
    name = "sparse_decode"
    reference = staticmethod(sparse_decode_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.sparse_decode import cpp

            return cpp
        from groupcc.ops.sparse_decode import triton

        return triton

    def outputs(self, args: Args) -> torch.Tensor:
        return args.W_dec_LGD.new_empty(args.acts_NK.shape[0], *args.W_dec_LGD.shape[1:])

    def reference_pays(self, args: Args) -> str | None:
        return dense_pays(args.acts_NK, args.W_dec_LGD)

    def also_reads(self, args: Args) -> bool:
        return tf32_matters(args.W_dec_LGD)

    def save(self, args: Args, _: torch.Tensor) -> Backward:
        return Backward(LATER, None, *args[:3], need_bias=LATER)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """d_acts, d_W_dec and d_b_dec, which has no elements unless needed."""
        W_dec = args.W_dec_LGD
        d_b_dec = W_dec.new_empty(W_dec.shape[1:] if args.need_bias else (0,))
        return args.acts_NK.new_empty(args.acts_NK.shape), W_dec.new_empty(W_dec.shape), d_b_dec

    def gradients(self, record: Backward, saved: Saved, grad: torch.Tensor) -> dict[str, torch.Tensor]:
        need_bias = "b_dec_GD" in saved.needs
        d_acts, d_W_dec, d_b_dec = self.backward(record._replace(grad_NGD=grad, need_bias=need_bias), saved.backend)
        return {"acts_NK": d_acts, "W_dec_LGD": d_W_dec, "b_dec_GD": d_b_dec}


OP = _SparseDecode()


def sparse_decode(
    acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None = None
) -> torch.Tensor:
    """out[n, g] = Σ_k acts[n, k] · W_dec[indices[n, k], g] + b_dec[g]: [N, K], int64 [N, K], [L, G, D] → [N, G, D].

    An index may stand more than once in a row. The dtype is that of `W_dec`, which `acts` and `b_dec` must share. An
    act of 0, such as batchtopk pads rows with, adds nothing in the kernels, whatever its row of `W_dec`; the reference
    multiplies, so there an infinite or NaN row makes NaN even so, and of every example where the product is dense.

    Gradients flow to `acts`, `W_dec` and `b_dec` [G, D]; those of the kernels can't be differentiated again. Errors:
    ArgumentError for shapes and dtypes; for an index outside 0 to L - 1 IndexError in C++ and PyTorch's RuntimeError in
    the reference, while the Triton kernels don't look. Deterministic on the CPU.
    """
    check_latents(acts, indices, W_dec, b_dec)
    return OP(Args(acts, indices, W_dec, b_dec))
