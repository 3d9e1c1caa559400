"""encode_topk: the k most active latents of each example, straight from what the encoder reads."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.ops._checks import check_k
from groupcc.ops._dispatch import Op
from groupcc.ops.encode_topk.reference import encode_topk_reference

__all__ = ["encode_topk"]


@torch.library.custom_op("groupcc::encode_topk", mutates_args=())
def _encode_topk(
    x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "forward", x, W_enc, b_enc, k)


@_encode_topk.register_fake
def _(
    x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(x.shape[0], k), x.new_empty(x.shape[0], k, dtype=torch.int64)


@torch.library.custom_op("groupcc::encode_topk_backward", mutates_args=())
def _encode_topk_backward(
    grad_acts: torch.Tensor,
    acts: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    W_enc: torch.Tensor,
    need_x: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "backward", grad_acts, acts, indices, x, W_enc, need_x)


@_encode_topk_backward.register_fake
def _(
    grad_acts: torch.Tensor,
    acts: torch.Tensor,
    indices: torch.Tensor,
    x: torch.Tensor,
    W_enc: torch.Tensor,
    need_x: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    M, L = W_enc.shape
    d_x = x.new_empty(x.shape if need_x else (0, M))
    return d_x, W_enc.new_empty(L, M).t(), W_enc.new_empty(L)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    x, W_enc, _, _, ctx.backend = inputs
    acts, indices = output
    ctx.mark_non_differentiable(indices)
    ctx.save_for_backward(acts, indices, x, W_enc)


def _gradients(ctx: Any, grad_acts: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
    acts, indices, x, W_enc = ctx.saved_tensors
    need_x, need_W, need_b, *_rest = ctx.needs_input_grad
    d_x, d_W_enc, d_b_enc = _encode_topk_backward(grad_acts, acts, indices, x, W_enc, need_x, ctx.backend)
    return d_x if need_x else None, d_W_enc if need_W else None, d_b_enc if need_b else None, None, None


_encode_topk.register_autograd(_gradients, setup_context=_setup)
_op = Op("encode_topk", encode_topk_reference, _encode_topk, ("cpp", "triton"))


def encode_topk(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row of x @ W_enc + b_enc, then ReLU: [N, M], [M, L], [L] → acts [N, k], int64 [N, k].

    As [`topk`][groupcc.ops.topk] of the pre-activations, in its order and with its treatment of ties, NaN and the
    ReLU's mask, but the [N, L] pre-activations never lie in memory whole. Equal to the reference up to the rounding
    of the products, so two latents closer than that may change places. All of one floating dtype. Gradients: acts'
    where positive, to `x`, `W_enc` and `b_enc`. Any strides; W_enc is read, and its gradient laid out, fastest as
    the transpose of a contiguous [L, M]. Deterministic.

    ArgumentError for shapes, dtypes, or k outside 1 to L.
    """
    _check(x, W_enc, b_enc, k)
    return _op(x, W_enc, b_enc, k)


def _check(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise argument_error(
            "x",
            expected="a floating-point tensor [N, M]",
            got=f"{x.dtype} of shape {tuple(x.shape)}",
            remedy="Flatten the blocks that the encoder reads: acts.flatten(1).",
        )
    if W_enc.dim() != 2 or W_enc.shape[0] != x.shape[1] or W_enc.dtype != x.dtype:
        raise argument_error(
            "W_enc",
            expected=f"{x.dtype} of shape [M, L] = [{x.shape[1]}, L]",
            got=f"{W_enc.dtype} of shape {tuple(W_enc.shape)}",
            remedy="Flatten its blocks as those of x, and convert one of them.",
        )
    L = W_enc.shape[1]
    if b_enc.shape != (L,) or b_enc.dtype != x.dtype:
        raise argument_error(
            "b_enc",
            expected=f"{x.dtype} of shape [L] = [{L}]",
            got=f"{b_enc.dtype} of shape {tuple(b_enc.shape)}",
            remedy="One bias for each column of W_enc.",
        )
    check_k(k, L)
