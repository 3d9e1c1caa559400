"""orbit_encode: feature maps of an orbit → pre-activations, without the aligned activations in between."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.ops._dispatch import Op
from groupcc.ops.orbit_encode.reference import orbit_encode_reference
from groupcc.ops.orbit_gather import check_gather

__all__ = ["orbit_encode"]


@torch.library.custom_op("groupcc::orbit_encode", mutates_args=())
def _orbit_encode(
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    interpolation: str,
    relu: bool,
    backend: str,
) -> torch.Tensor:
    return _op.launch(backend, "forward", maps, points, W_enc, b_enc, interpolation, relu)


@_orbit_encode.register_fake
def _(
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    interpolation: str,
    relu: bool,
    backend: str,
) -> torch.Tensor:
    return maps.new_empty(maps.shape[0] * points.shape[1], W_enc.shape[2])


@torch.library.custom_op("groupcc::orbit_encode_backward", mutates_args=())
def _orbit_encode_backward(
    grad: torch.Tensor,
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    interpolation: str,
    need_maps: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "backward", grad, maps, points, W_enc, interpolation, need_maps)


@_orbit_encode_backward.register_fake
def _(
    grad: torch.Tensor,
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    interpolation: str,
    need_maps: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    d_maps = maps.new_empty(maps.shape if need_maps else (0,))
    return d_maps, torch.empty_like(W_enc), grad.new_empty(W_enc.shape[2])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    maps, points, W_enc, _, ctx.interpolation, relu, ctx.backend = inputs
    ctx.save_for_backward(maps, points, W_enc, output if relu else None)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    maps, points, W_enc, positive = ctx.saved_tensors
    if positive is not None:
        grad = torch.where(positive > 0, grad, 0)
    need_maps = ctx.needs_input_grad[0]
    d_maps, d_W_enc, d_b_enc = _orbit_encode_backward(
        grad, maps, points, W_enc, ctx.interpolation, need_maps, ctx.backend
    )
    return d_maps if need_maps else None, None, d_W_enc, d_b_enc, None, None, None


_orbit_encode.register_autograd(_gradients, setup_context=_setup)
_op = Op("orbit_encode", orbit_encode_reference, _orbit_encode, ("cpp", "triton"))


def orbit_encode(
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    interpolation: str = "bilinear",
    relu: bool = False,
) -> torch.Tensor:
    """pre[b·P + p] = Σ_g a_g(b, p) W_enc[g] + b_enc with a = orbit_gather(maps, points): [B·P, L].

    - `maps` [B, S, H, W, D], `points` [G, P, 2], `interpolation`: as in [`orbit_gather`][groupcc.ops.orbit_gather].
    - `W_enc` [G, D, L], or [1, D, L] for an encoder that reads element 0 alone; `b_enc` [L]. Both in the dtype of
      `maps`, which is the result's. Any strides; a transposed view of contiguous [L, G, D] is not copied.
    - `relu`: max(pre, 0), NaN staying NaN.

    The kernels hold at most a block of the aligned activations at a time. Equal to orbit_gather and a matrix product up
    to the rounding of the sums. Gradients flow to `maps`, `W_enc` and `b_enc`, with `relu` only where the result is
    above 0. Errors: ArgumentError for shapes, dtypes, or points outside the map. Deterministic on the CPU.
    """
    check_gather(maps, points, interpolation)
    G, D = points.shape[0], maps.shape[-1]
    if W_enc.dim() != 3 or W_enc.shape[0] not in (min(1, G), G) or W_enc.shape[1] != D or W_enc.dtype != maps.dtype:
        raise argument_error(
            "W_enc",
            expected=f"{maps.dtype} of shape [G or 1, D, L] = [{G} or {min(1, G)}, {D}, L]",
            got=f"{W_enc.dtype} of shape {tuple(W_enc.shape)}",
            remedy="Maps, points and encoder must come from one group and one layer, in one dtype.",
        )
    if b_enc.shape != W_enc.shape[2:] or b_enc.dtype != maps.dtype:
        raise argument_error(
            "b_enc",
            expected=f"{maps.dtype} of shape [L] = [{W_enc.shape[2]}]",
            got=f"{b_enc.dtype} of shape {tuple(b_enc.shape)}",
            remedy="One bias for each latent, in the dtype of maps.",
        )
    return _op(maps, points, W_enc, b_enc, interpolation, relu)
