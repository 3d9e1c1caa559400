"""orbit_correlate, orbit_correlate_max: how well base latents match the orbits in feature maps, no orbit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._dispatch import Op, current_backend
from groupcc.ops._group_blocks import check_blocks
from groupcc.ops.group_correlate import coefficient_counts
from groupcc.ops.orbit_correlate.reference import orbit_correlate_reference
from groupcc.ops.orbit_gather import check_gather

__all__ = ["keeps_no_orbits", "orbit_correlate", "orbit_correlate_max"]


@torch.library.custom_op("groupcc::orbit_correlate", mutates_args=())
def _orbit_correlate(
    maps: torch.Tensor,
    points: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor | None,
    group: str,
    interpolation: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """z [N, L, G], laid out as [N, G, L], and no poses, or with a bias values and poses [N, L]; and the coefficients of
    orbits and of W, for the gradients."""
    return _op.launch(backend, "forward", maps, points, W, b, group_named(group), interpolation)


@_orbit_correlate.register_fake
def _(
    maps: torch.Tensor,
    points: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor | None,
    group: str,
    interpolation: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    N, (L, G, D) = maps.shape[0] * points.shape[1], W.shape
    of_acts, of_W = coefficient_counts(group_named(group))
    found = maps.new_empty(N, G, L).transpose(1, 2) if b is None else maps.new_empty(N, L)
    poses = maps.new_empty((0, 0) if b is None else (N, L), dtype=torch.int64)
    return found, poses, maps.new_empty(N * of_acts * D), maps.new_empty(L * of_W * D)


@torch.library.custom_op("groupcc::orbit_correlate_backward", mutates_args=())
def _orbit_correlate_backward(
    grad: torch.Tensor,
    poses: torch.Tensor | None,
    acts: torch.Tensor,
    W: torch.Tensor,
    points: torch.Tensor,
    shape: Sequence[int],
    group: str,
    interpolation: str,
    need_maps: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_maps (empty unless `need_maps`) and d_W, from the coefficients of orbits and W; `poses`: None for z's."""
    sizes = tuple(shape)
    return _op.launch(
        backend, "backward", grad, poses, acts, W, points, sizes, group_named(group), interpolation, need_maps
    )


@_orbit_correlate_backward.register_fake
def _(
    grad: torch.Tensor,
    poses: torch.Tensor | None,
    acts: torch.Tensor,
    W: torch.Tensor,
    points: torch.Tensor,
    shape: Sequence[int],
    group: str,
    interpolation: str,
    need_maps: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    d_W = grad.new_empty(grad.shape[1], group_named(group).order, shape[-1])
    return grad.new_empty(shape if need_maps else (0,)), d_W


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    maps, points, _, b, ctx.group, ctx.interpolation, ctx.backend = inputs
    ctx.shape = maps.shape
    _, poses, acts_hat, W_hat = output
    ctx.mark_non_differentiable(poses, acts_hat, W_hat)
    ctx.set_materialize_grads(False)  # zeros for the coefficients, larger than z's
    ctx.save_for_backward(None if b is None else poses, acts_hat, W_hat, points)


def _gradients(ctx: Any, grad: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 7
    need_maps, _, need_W, need_b, *_rest = ctx.needs_input_grad
    d_b = grad.sum(0) if need_b else None
    if not (need_maps or need_W):
        return None, None, None, d_b, None, None, None
    d_maps, d_W = _orbit_correlate_backward(
        grad, *ctx.saved_tensors, ctx.shape, ctx.group, ctx.interpolation, need_maps, ctx.backend
    )
    return d_maps if need_maps else None, None, d_W if need_W else None, d_b, None, None, None


_orbit_correlate.register_autograd(_gradients, setup_context=_setup)


def _compiled(
    maps: torch.Tensor,
    points: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor | None,
    group: Group,
    interpolation: str,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    return _orbit_correlate(maps, points, W, b, group.name, interpolation, backend)[:2]


_op = Op("orbit_correlate", orbit_correlate_reference, _compiled, ("triton",))


def orbit_correlate(
    maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, group: Group, interpolation: str = "bilinear"
) -> torch.Tensor:
    """z[b·P + p, l, h] = Σ_g ⟨W[l, gh], a_g(b, p)⟩ with a = orbit_gather(maps, points): [B·P, L, G].

    - `maps` [B, S, H, W, D], `points` [G, P, 2], `interpolation`: as in [`orbit_gather`][groupcc.ops.orbit_gather].
    - `W` [L, G, D], the base latents, as in [`group_correlate`][groupcc.ops.group_correlate], in the dtype of `maps`,
      which is the result's.

    "triton" samples the maps inside the Fourier transform, so that the orbits [B·P, G, D] are never stored, and
    differentiates once. Elsewhere, and under `auto` for groups too small to gain by the transform, `orbit_gather` and
    `group_correlate` run one after the other: on CPUs the gather is 4 to 30 % of the time, and in blocks small
    enough for the cache the products lose more than the memory's traffic costs (measured: 1.1 to 1.6 times slower).
    Both are equal up to roundings. Gradients to `maps` and `W`. Deterministic on the CPU. Strides of the result are not
    fixed.

    ArgumentError for shapes, dtypes, or points outside the map.
    """
    _check(maps, points, W, group, interpolation)
    return _run(maps, points, W, None, group, interpolation)[0]


def orbit_correlate_max(
    maps: torch.Tensor,
    points: torch.Tensor,
    W: torch.Tensor,
    b: torch.Tensor,
    group: Group,
    interpolation: str = "bilinear",
) -> tuple[torch.Tensor, torch.Tensor]:
    """max_h and argmax_h of z[n, l, h] + b[l], z = orbit_correlate(maps, points, W, group, interpolation).

    `b` [L] in the dtype of `maps`; values and int64 poses, [B·P, L]. "triton" stores neither orbits nor z. Equal
    values, NaN, roundings and gradients (to `maps`, `W` and `b`) are as in
    [`group_correlate_max`][groupcc.ops.group_correlate_max].

    ArgumentError for shapes, dtypes, or points outside the map.
    """
    _check(maps, points, W, group, interpolation)
    if b.shape != W.shape[:1] or b.dtype != maps.dtype:
        raise argument_error(
            "b",
            expected=f"{maps.dtype} of shape [L] = [{len(W)}]",
            got=f"{b.dtype} of shape {tuple(b.shape)}",
            remedy="One bias for each base latent, in the dtype of maps.",
        )
    values, poses = _run(maps, points, W, b, group, interpolation)
    assert poses is not None
    return values, poses


def keeps_no_orbits(
    maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None, group: Group, interpolation: str
) -> bool:
    """Whether `orbit_correlate` (or with `b` `orbit_correlate_max`) leaves the orbits out of memory; a caller with more
    use for them forms them if not."""
    return current_backend() != "cpp" and _op.choose(maps, points, W, b, group, interpolation) != "reference"


def _run(
    maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None, group: Group, interpolation: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if current_backend() == "cpp":  # which has kernels for the parts
        return orbit_correlate_reference(maps, points, W, b, group, interpolation)
    found: tuple[torch.Tensor, torch.Tensor | None] = _op(maps, points, W, b, group, interpolation)
    return found


def _check(maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, group: Group, interpolation: str) -> None:
    check_gather(maps, points, interpolation)
    if len(points) != group.order:
        raise argument_error(
            "points",
            expected=f"[G, P, 2] with G = {group.order}, the order of {group}",
            got=f"shape {tuple(points.shape)}",
            remedy="One row of points for each element of the group.",
        )
    check_blocks("W", W, maps.new_empty(0, group.order, maps.shape[-1]), group)
