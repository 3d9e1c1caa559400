"""orbit_correlate, orbit_correlate_max: how well base latents match the orbits in feature maps, no orbit in memory."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.ops._checks import check_bias, check_blocks
from groupcc.ops._declare import Kernels, Op, Saved
from groupcc.ops._group_fourier import coefficient_counts, saves_too_little
from groupcc.ops.group_correlate import OP as CORRELATE
from groupcc.ops.group_correlate import Backward as CorrelateBackward
from groupcc.ops.orbit_correlate.reference import Args, orbit_correlate_reference
from groupcc.ops.orbit_gather import OP as GATHER
from groupcc.ops.orbit_gather import Backward as GatherBackward
from groupcc.ops.orbit_gather import check_gather

__all__ = ["OP", "Args", "check_orbits", "orbit_correlate", "orbit_correlate_max"]


class _Kept(NamedTuple):
    """What the forward pass keeps; `acts` and `W` are the coefficients of orbits and W."""

    poses_NL: torch.Tensor | None
    acts: torch.Tensor
    W: torch.Tensor
    points_GP2: torch.Tensor
    shape_BSHWD: tuple[int, ...]
    group: Group
    interpolation: str


class _OrbitCorrelate(Op[Args, tuple[torch.Tensor, torch.Tensor | None]]):
    name = "orbit_correlate"
    backends = ("triton",)
    composed: ClassVar = {"cpp": ("orbit_gather", "group_correlate", "group_correlate_max")}
    results = slice(2)
    reference = staticmethod(orbit_correlate_reference)

    def import_kernels(self, _: str) -> Kernels[Args]:
        from groupcc.ops.orbit_correlate import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """z [N, L, G], laid out as [N, G, L], and no poses; or if there is a bias values and poses [N, L]. And the
        coefficients of orbits and of W, for the gradients."""
        maps, (L, G, D) = args.maps_BSHWD, args.W_LGD.shape
        N, (of_acts, of_W) = maps.shape[0] * args.points_GP2.shape[1], coefficient_counts(args.group)
        values = maps.new_empty(N, G, L).transpose(1, 2) if args.b_L is None else maps.new_empty(N, L)
        poses = maps.new_empty((0, 0) if args.b_L is None else (N, L), dtype=torch.int64)
        return values, poses, maps.new_empty(N * of_acts * D), maps.new_empty(L * of_W * D)

    def reference_pays(self, args: Args) -> str | None:
        return saves_too_little(args.group)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]) -> _Kept:
        _, poses, acts, W = outputs
        poses_if_max = None if args.b_L is None else poses
        return _Kept(poses_if_max, acts, W, args.points_GP2, args.maps_BSHWD.shape, args.group, args.interpolation)

    def gradients(self, kept: _Kept, saved: Saved, grad: torch.Tensor, *_: None) -> dict[str, torch.Tensor]:
        poses, acts, W, points, shape, group, interpolation = kept
        grads = {"b_L": grad.sum(0)} if "b_L" in saved.needs else {}
        if saved.needs - {"b_L"}:
            need_maps = "maps_BSHWD" in saved.needs
            correlated = CorrelateBackward(grad, poses, acts, W, shape[-1], group, need_maps)
            d_orbits, grads["W_LGD"] = CORRELATE.backward(correlated, saved.backend)
            if need_maps:
                gathered = GatherBackward(d_orbits, points, shape, interpolation)
                grads["maps_BSHWD"] = GATHER.backward(gathered, saved.backend)
        return grads


OP = _OrbitCorrelate()


def orbit_correlate(
    maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, group: Group, interpolation: str = "bilinear"
) -> torch.Tensor:
    """z[b·P + p, l, h] = Σ_g ⟨W[l, gh], a_g(b, p)⟩ with a = orbit_gather(maps, points): [B·P, L, G].

    - `maps` [B, S, H, W, D], `points` [G, P, 2], `interpolation`: as in [`orbit_gather`][groupcc.ops.orbit_gather].
    - `W` [L, G, D], the base latents, as in [`group_correlate`][groupcc.ops.group_correlate], in the dtype of `maps`,
      which is the result's.

    - "triton" samples the maps inside the Fourier transform. So the orbits [B·P, G, D] are never stored. Its gradients
      can't be differentiated again.
    - Other backends run `orbit_gather` and then `group_correlate`. So does `auto` if the group is too small to gain by
      the transform. On CPUs the gather is 4 to 30 % of the time. In blocks small enough for the cache, the products
      lose more than the traffic to memory costs (measured: 1.1 to 1.6 times slower).
    - Both ways are equal up to roundings. Gradients to `maps` and `W`. Deterministic on the CPU. Strides of the result
      are not fixed.

    ArgumentError for shapes, dtypes, or points outside the map.
    """
    _check(maps, points, W, group, interpolation)
    return OP(Args(maps, points, W, None, group, interpolation))[0]


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
    values, poses = OP(Args(maps, points, W, b, group, interpolation))
    assert poses is not None
    return values, poses


def check_orbits(maps: torch.Tensor, points: torch.Tensor, group: Group, interpolation: str) -> None:
    """`maps` and `points` are as orbit_gather takes them, with a row of points for each element, or ArgumentError."""
    check_gather(maps, points, interpolation)
    if len(points) != group.order:
        raise argument_error(
            "points",
            expected=f"[G, P, 2] with G = {group.order}, the order of {group}",
            got=f"shape {tuple(points.shape)}",
            remedy="One row of points for each element of the group.",
        )


def _check(maps: torch.Tensor, points: torch.Tensor, W: torch.Tensor, group: Group, interpolation: str) -> None:
    check_orbits(maps, points, group, interpolation)
    check_blocks("W", W, maps.new_empty(0, group.order, maps.shape[-1]), group)
