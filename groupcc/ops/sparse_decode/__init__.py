"""sparse_decode: active latents → reconstruction of every block."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.ops._checks import check_latents
from groupcc.ops._dispatch import Op
from groupcc.ops.sparse_decode.reference import sparse_decode_reference

__all__ = ["sparse_decode"]


@torch.library.custom_op("groupcc::sparse_decode", mutates_args=())
def _sparse_decode(
    acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None, backend: str
) -> torch.Tensor:
    return _op.launch(backend, "forward", acts, indices, W_dec, b_dec)


@_sparse_decode.register_fake
def _(
    acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None, backend: str
) -> torch.Tensor:
    return W_dec.new_empty(acts.shape[0], *W_dec.shape[1:])


@torch.library.custom_op("groupcc::sparse_decode_backward", mutates_args=())
def _sparse_decode_backward(
    grad: torch.Tensor,
    scale: torch.Tensor | None,
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    need_bias: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """d_acts, d_W_dec, d_b_dec (of no elements without `need_bias`) where the gradient is scale[g] · grad[n, g, d]."""
    return _op.launch(backend, "backward", grad, scale, acts, indices, W_dec, need_bias)


@_sparse_decode_backward.register_fake
def _(
    grad: torch.Tensor,
    scale: torch.Tensor | None,
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    need_bias: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    d_b_dec = W_dec.new_empty(W_dec.shape[1:] if need_bias else (0,))
    return acts.new_empty(acts.shape), W_dec.new_empty(W_dec.shape), d_b_dec


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    acts, indices, W_dec, _, ctx.backend = inputs
    ctx.save_for_backward(acts, indices, W_dec)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    acts, indices, W_dec = ctx.saved_tensors
    need_bias = ctx.needs_input_grad[3]
    d_acts, d_W_dec, d_b_dec = _sparse_decode_backward(grad, None, acts, indices, W_dec, need_bias, ctx.backend)
    return d_acts, None, d_W_dec, d_b_dec if need_bias else None, None


_sparse_decode.register_autograd(_gradients, setup_context=_setup)
_op = Op("sparse_decode", sparse_decode_reference, _sparse_decode, ("cpp", "triton"))


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
    return _op(acts, indices, W_dec, b_dec)
