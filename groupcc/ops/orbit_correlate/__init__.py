"""orbit_correlate, orbit_correlate_max: how well base latents match the orbits in feature maps, no orbit in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.ops._checks import check_bias, check_blocks
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._group_fourier import coefficient_counts, saves_too_little
from groupcc.ops.orbit_correlate.reference import Args, orbit_correlate_reference
from groupcc.ops.orbit_gather import check_gather

__all__ = ["Args", "Backward", "keeps_no_orbits", "orbit_correlate", "orbit_correlate_max"]


class Backward(NamedTuple):
    """What the gradients are made from; `acts` and `W` are the coefficients of orbits and W, flat.

    `grad` is that of z [N, L, G], or if there are poses that of the values [N, L].
    """

    grad: torch.Tensor
    poses_NL: torch.Tensor | None
    acts: torch.Tensor
    W: torch.Tensor
    points_GP2: torch.Tensor
    shape_BSHWD: tuple[int, ...]
    group: Group
    interpolation: str
    need_maps: bool


def _outputs(args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """z [N, L, G], laid out as [N, G, L], and no poses; or if there is a bias values and poses [N, L]. And the
    coefficients of orbits and of W, for the gradients."""
    maps, (L, G, D) = args.maps_BSHWD, args.W_LGD.shape
    N, (of_acts, of_W) = maps.shape[0] * args.points_GP2.shape[1], coefficient_counts(args.group)
    values = maps.new_empty(N, G, L).transpose(1, 2) if args.b_L is None else maps.new_empty(N, L)
    poses = maps.new_empty((0, 0) if args.b_L is None else (N, L), dtype=torch.int64)
    return values, poses, maps.new_empty(N * of_acts * D), maps.new_empty(L * of_W * D)


def _kernels(_: str) -> Kernels[Args]:
    from groupcc.ops.orbit_correlate import triton

    return triton


def _d_outputs(args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
    """d_maps, which has no elements unless needed, and d_W."""
    d_W = args.grad.new_empty(args.grad.shape[1], args.group.order, args.shape_BSHWD[-1])
    return args.grad.new_empty(args.shape_BSHWD if args.need_maps else (0,)), d_W


def _save(args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]) -> Backward:
    maps, points, _, b, group, interpolation = args
    _, poses, acts, W = outputs
    return Backward(LATER, None if b is None else poses, acts, W, points, maps.shape, group, interpolation, LATER)


def _gradients(record: Backward, saved: Saved, grad: torch.Tensor, *_: None) -> dict[str, torch.Tensor]:
    d_b = {"b_L": grad.sum(0)} if "b_L" in saved.needs else {}
    if saved.needs == {"b_L"}:
        return d_b
    need_maps = "maps_BSHWD" in saved.needs
    d_maps, d_W = _backward(record._replace(grad=grad, need_maps=need_maps), saved.backend)
    return {"maps_BSHWD": d_maps, "W_LGD": d_W} | d_b


def _reference_pays(args: Args) -> str | None:
    return saves_too_little(args.group)


_op = Op(
    "orbit_correlate",
    orbit_correlate_reference,
    _outputs,
    _kernels,
    ("triton",),
    composed={"cpp": ("orbit_gather", "group_correlate", "group_correlate_max")},
    reference_pays=_reference_pays,
    result=lambda outputs: outputs[:2],
)
_backward = _op.backward_operator(_d_outputs)
_op.differentiate(_save, _gradients)


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
    return _op(Args(maps, points, W, None, group, interpolation))[0]


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
    check_bias("b", b, maps, len(W), "One bias for each base latent, in the dtype of maps.")
    values, poses = _op(Args(maps, points, W, b, group, interpolation))
    assert poses is not None
    return values, poses


def keeps_no_orbits(
    maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None, group: Group, interpolation: str
) -> bool:
    """Whether `orbit_correlate` (or with `b` `orbit_correlate_max`) leaves the orbits out of memory; a caller with more
    use for them forms them if not."""
    return _op.has_kernels_for(Args(maps, points, W, b, group, interpolation))


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
