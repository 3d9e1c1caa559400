"""decode_loss: active latents and the activations they stand for → squared error of every block, and the residual."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.ops._checks import check_latents
from groupcc.ops._dispatch import Op
from groupcc.ops.decode_loss.reference import decode_loss_reference
from groupcc.ops.orbit_gather import check_gather, orbit_gather

__all__ = ["decode_loss", "decode_loss_maps"]


@torch.library.custom_op("groupcc::decode_loss", mutates_args=())
def _decode_loss(
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    points: torch.Tensor | None,
    interpolation: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "forward", acts, indices, W_dec, b_dec, target, points, interpolation)


@_decode_loss.register_fake
def _(
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    points: torch.Tensor | None,
    interpolation: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    wide = torch.promote_types(target.dtype, torch.float32)
    return target.new_empty(W_dec.shape[1], dtype=wide), target.new_empty(acts.shape[0], *W_dec.shape[1:])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    acts, indices, W_dec, ctx.backend = inputs[0], inputs[1], inputs[2], inputs[-1]
    ctx.save_for_backward(output[1], acts, indices, W_dec)
    ctx.set_materialize_grads(False)


def _gradients(ctx: Any, grad_loss: torch.Tensor | None, grad_residual: torch.Tensor | None) -> tuple[Any, ...]:
    residual, acts, indices, W_dec = ctx.saved_tensors
    d_acts = d_W_dec = d_b_dec = d_target = grad = None
    if grad_loss is None and grad_residual is None:
        return (None,) * 8
    if grad_residual is not None or ctx.needs_input_grad[4]:
        grad = torch.zeros_like(residual) if grad_residual is None else grad_residual
        if grad_loss is not None:
            grad = grad + (2 * grad_loss[:, None] * residual).to(residual.dtype)
        d_target = -grad if ctx.needs_input_grad[4] else None
    need_bias = ctx.needs_input_grad[3]
    if any(ctx.needs_input_grad[i] for i in (0, 2, 3)):
        scale = None
        if grad_residual is None and grad_loss is not None:
            grad, scale = residual, 2 * grad_loss  # their product is formed in the kernels
        d_acts, d_W_dec, d_b_dec = torch.ops.groupcc.sparse_decode_backward(
            grad, scale, acts, indices, W_dec, need_bias, ctx.backend
        )
    return d_acts, None, d_W_dec, d_b_dec if need_bias else None, d_target, None, None, None


_decode_loss.register_autograd(_gradients, setup_context=_setup)
_op = Op("decode_loss", decode_loss_reference, _decode_loss, ("cpp", "triton"))


def decode_loss(
    acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes as `sparse_decode` does, and measures the error: loss[g] = Σ_nd residual², residual = â − target.

    - `acts` [N, K], `indices` int64 [N, K], `W_dec` [L, G, D], `b_dec` [G, D] or None, `target` [N, G, D]: one dtype.
    - Returns loss [G], summed in fp32 (fp64 for fp64 inputs) and kept so, and the residual [N, G, D] in the dtype of
      `target`. The reconstruction is target + residual.
    - Gradients flow to `acts`, `W_dec`, `b_dec` and `target`, from either output. That of the loss alone is formed
      from the residual inside the kernel. The kernels' can't be differentiated again.

    Acts of 0, errors and determinism as in [`sparse_decode`][groupcc.ops.sparse_decode].
    """
    check_latents(acts, indices, W_dec, b_dec)
    _check_target("target", target, acts)
    expected = (acts.shape[0], *W_dec.shape[1:])
    if target.shape != expected:
        raise argument_error(
            "target",
            expected=f"[N, G, D] = {expected}",
            got=f"shape {tuple(target.shape)}",
            remedy="Pass the activations that acts and indices were encoded from.",
        )
    return _op(acts, indices, W_dec, b_dec, target, None, "")


def decode_loss_maps(
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    maps: torch.Tensor,
    points: torch.Tensor,
    interpolation: str = "bilinear",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`decode_loss` with target = `orbit_gather(maps, points, interpolation)`, which the kernels never store.

    `maps` [B, S, H, W, D] and `points` [G, P, 2] as there, with N = B·P. The kernels gather each target element once,
    where the residual is formed. Gathered beforehand it is where `maps` needs a gradient, and by the reference, which
    `auto` takes where a dense product costs less than a sparse decode. Errors also as in
    [`orbit_gather`][groupcc.ops.orbit_gather].
    """
    check_latents(acts, indices, W_dec, b_dec)
    check_gather(maps, points, interpolation)
    _check_target("maps", maps, acts)
    gathered = (maps.shape[0] * points.shape[1], points.shape[0], maps.shape[4])
    expected = (acts.shape[0], *W_dec.shape[1:])
    if gathered != expected:
        raise argument_error(
            "maps",
            expected=f"maps and points of [B·P, G, D] = {expected}",
            got=f"{gathered}",
            remedy="Pass the maps that acts and indices were encoded from.",
        )
    if maps.requires_grad and torch.is_grad_enabled():
        return _op(acts, indices, W_dec, b_dec, orbit_gather(maps, points, interpolation), None, "")
    return _op(acts, indices, W_dec, b_dec, maps, points, interpolation)


def _check_target(name: str, target: torch.Tensor, acts: torch.Tensor) -> None:
    if target.dtype != acts.dtype:
        raise argument_error(
            name,
            expected=f"{acts.dtype}, as acts",
            got=f"{target.dtype}",
            remedy="Convert one of them.",
        )
