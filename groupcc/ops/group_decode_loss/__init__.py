"""group_decode_loss: active base latents in poses and the orbits they stand for → squared error, and the residual."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._dispatch import Op, current_backend
from groupcc.ops._group_blocks import check_blocks, check_poses, single_blocks
from groupcc.ops.decode_loss import decode_loss

__all__ = ["group_decode_loss"]


@torch.library.custom_op("groupcc::group_decode_loss", mutates_args=())
def _group_decode_loss(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: str,
    need_acts: bool,
    need_bias: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss and residual; what the gradients to acts and b_dec begin with, of no elements unless needed: the residual's
    inner products with the latents as they stand [N, K], and its sum over examples and blocks [D]."""
    arguments = (acts, indices, poses, W_dec, b_dec, target, group_named(group), need_acts, need_bias)
    return _op.launch(backend, "forward", *arguments)


@_group_decode_loss.register_fake
def _(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: str,
    need_acts: bool,
    need_bias: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(target.dtype, torch.float32)
    (N, K), D = acts.shape, W_dec.shape[2]
    answers = target.new_empty(N if need_acts else 0, K, dtype=wide)
    column_sums = target.new_empty(D if need_bias else 0, dtype=wide)
    return target.new_empty((), dtype=wide), target.new_empty(target.shape), answers, column_sums


@torch.library.custom_op("groupcc::group_decode_backward", mutates_args=())
def _group_decode_backward(
    grad: torch.Tensor,
    scale: torch.Tensor | None,
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    answers: torch.Tensor | None,
    column_sums: torch.Tensor | None,
    need_acts: bool,
    need_bias: bool,
    group: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """d_acts and d_b_dec [1, D] (both empty unless needed) and d_W_dec of Σ grad·scale·â; `scale` is a scalar,
    `answers` and `column_sums` are those of grad where the forward pass has left them."""
    known = (answers, column_sums, need_acts, need_bias, group_named(group))
    return _op.launch(backend, "backward", grad, scale, acts, indices, poses, W_dec, *known)


@_group_decode_backward.register_fake
def _(
    grad: torch.Tensor,
    scale: torch.Tensor | None,
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    answers: torch.Tensor | None,
    column_sums: torch.Tensor | None,
    need_acts: bool,
    need_bias: bool,
    group: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    d_b_dec = W_dec.new_empty(1 if need_bias else 0, W_dec.shape[2])
    d_acts = acts.new_empty(len(acts) if need_acts else 0, acts.shape[1])
    return d_acts, W_dec.new_empty(W_dec.shape), d_b_dec


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    acts, indices, poses, W_dec, _, _, ctx.group, ctx.has_answers, ctx.has_sums, ctx.backend = inputs
    _, residual, answers, column_sums = output
    ctx.mark_non_differentiable(answers, column_sums)
    ctx.save_for_backward(residual, acts, indices, poses, W_dec, answers, column_sums)
    ctx.set_materialize_grads(False)


def _gradients(
    ctx: Any, grad_loss: torch.Tensor | None, grad_residual: torch.Tensor | None, *_: Any
) -> tuple[Any, ...]:
    residual, acts, indices, poses, W_dec, answers, column_sums = ctx.saved_tensors
    if grad_loss is None and grad_residual is None:
        return (None,) * 10
    d_acts = d_W_dec = d_b_dec = d_target = grad = None
    need_acts, need_bias, need_target = (ctx.needs_input_grad[i] for i in (0, 4, 5))
    if grad_residual is not None or need_target:
        grad = torch.zeros_like(residual) if grad_residual is None else grad_residual
        if grad_loss is not None:
            grad = grad + (2 * grad_loss * residual).to(residual.dtype)
        d_target = -grad if need_target else None
    if any(ctx.needs_input_grad[i] for i in (0, 3, 4)):
        scale, known = None, (None, None)
        if grad_residual is None and grad_loss is not None:
            grad, scale = residual, 2 * grad_loss  # their product is never formed
            known = (answers if ctx.has_answers else None, column_sums if ctx.has_sums else None)
        d_acts, d_W_dec, d_b_dec = _group_decode_backward(
            grad, scale, acts, indices, poses, W_dec, *known, need_acts, need_bias, ctx.group, ctx.backend
        )
    d_acts, d_b_dec = d_acts if need_acts else None, d_b_dec if need_bias else None
    return d_acts, None, None, d_W_dec, d_b_dec, d_target, None, None, None, None


_group_decode_loss.register_autograd(_gradients, setup_context=_setup)


def _by_single_blocks(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `decode_loss` of N·G examples of one block, on the backend in force."""
    error, residual = decode_loss(
        *single_blocks(acts, indices, poses, W_dec, group), b_dec, target.flatten(0, 1)[:, None]
    )
    return error.sum(), residual.view_as(target)


def _compiled(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: Group,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    needs = [
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad for tensor in (acts, b_dec)
    ]  # of the loss alone: others are formed when they are asked for
    return _group_decode_loss(acts, indices, poses, W_dec, b_dec, target, group.name, *needs, backend)[:2]


_op = Op("group_decode_loss", _by_single_blocks, _compiled, ("cpp",))


def group_decode_loss(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes base latents in poses, â[n, g] = Σ_k acts[n, k] · W_dec[indices[n, k], g·poses[n, k]] + b_dec, and
    measures the error: Σ residual², residual = â − target.

    - `acts` [N, K], `indices` and `poses` int64 [N, K], `W_dec` [L, G, D] (base latents), `b_dec` [1, D] (one for all
      blocks) or None, `target` [N, G, D]: one dtype. A base latent may stand in several poses.
    - Returns the loss, a scalar summed in fp32 or wider, and the residual [N, G, D] in the dtype of `target`.
    - Gradients flow to `acts`, `W_dec`, `b_dec` and `target`, from either output; the kernels' can't be differentiated
      again.

    Multiplications: N·K·G·D, and twice that backward; the atoms R_h W_dec[l] are never formed. "cpp" reads each base
    latent in all its poses from the cache; elsewhere it is `decode_loss` of N·G examples of one block. Acts of 0,
    errors and determinism as in [`sparse_decode`][groupcc.ops.sparse_decode]; for a pose outside 0 to G - 1
    IndexError in C++. Tied dictionaries: design of groupcc, after the translation law of Gorton 2024, section 2.
    """
    check_poses(poses, indices)
    if acts.shape != indices.shape or acts.dtype != target.dtype:
        raise argument_error(
            "acts",
            expected=f"{target.dtype} of shape [N, K] = {tuple(indices.shape)}",
            got=f"{acts.dtype} of shape {tuple(acts.shape)}",
            remedy="One act for each of indices, in the dtype of target.",
        )
    if target.dim() != 3 or len(target) != len(acts) or not target.is_floating_point():
        raise argument_error(
            "target",
            expected=f"a floating-point tensor [N, G, D] with N = {len(acts)}",
            got=f"{target.dtype} of shape {tuple(target.shape)}",
            remedy="Pass the activations that acts were encoded from.",
        )
    check_blocks("W_dec", W_dec, target, group)
    if b_dec is not None and (b_dec.shape != (1, W_dec.shape[2]) or b_dec.dtype != W_dec.dtype):
        raise argument_error(
            "b_dec",
            expected=f"{W_dec.dtype} of shape [1, D] = [1, {W_dec.shape[2]}], or None",
            got=f"{b_dec.dtype} of shape {tuple(b_dec.shape)}",
            remedy="One bias for all blocks: that of every pose is the same.",
        )
    if current_backend() == "triton":  # decode_loss has the kernels
        return _by_single_blocks(acts, indices, poses, W_dec, b_dec, target, group)
    return _op(acts, indices, poses, W_dec, b_dec, target, group)
