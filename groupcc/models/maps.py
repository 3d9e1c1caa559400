"""Latents of feature maps, whose aligned activations are not stored where a kernel reads them from the maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from groupcc import ops
from groupcc.errors import argument_error
from groupcc.models.latents import SparseLatents
from groupcc.models.poses import select_strongest

if TYPE_CHECKING:
    from groupcc.models.crosscoder import GroupCrosscoder

__all__ = ["encode_maps"]


def encode_maps(
    crosscoder: GroupCrosscoder, maps: torch.Tensor, points: torch.Tensor, interpolation: str
) -> SparseLatents:
    """See `GroupCrosscoder.encode_maps`."""
    config, G, P = crosscoder.config, crosscoder.group.order, points.shape[1]
    if points.shape[0] != G:
        raise argument_error(
            "points",
            expected=f"[G, P, 2] with G = {G}",
            got=f"shape {tuple(points.shape)}",
            remedy="One row of points for each element of the crosscoder's group.",
        )
    if config.tied is True and config.encoder == "orbit":
        found = _without_orbits(crosscoder, maps, points, interpolation)
        if found is not None:
            return found
    if config.tied:
        return crosscoder.encode(ops.orbit_gather(maps, points, interpolation))
    W_enc, b_enc = crosscoder.W_enc.to(maps.dtype), crosscoder.b_enc.to(maps.dtype)
    pre = ops.orbit_encode(maps, points, W_enc.permute(1, 2, 0), b_enc, interpolation)
    _refuse_not_finite(pre, P)
    return crosscoder._choose(pre).latents


def _without_orbits(
    crosscoder: GroupCrosscoder, maps: torch.Tensor, points: torch.Tensor, interpolation: str
) -> SparseLatents | None:
    """Of a tied crosscoder; None where no kernel here reads orbits from maps, and the ways of `encode` cost less."""
    config, group, P = crosscoder.config, crosscoder.group, points.shape[1]
    maps, W_enc, b_enc = crosscoder._tied_encoder(maps)
    bias = b_enc if config.pose == "max" else None
    if not ops.keeps_no_orbits(maps, points, W_enc, bias, group, interpolation):
        return None
    if bias is None:
        pre = ops.orbit_correlate(maps, points, W_enc, group, interpolation) + b_enc[:, None]
        _refuse_not_finite(pre, P)
        return crosscoder._choose(pre).latents
    values, poses = ops.orbit_correlate_max(maps, points, W_enc, bias, group, interpolation)
    _refuse_not_finite(values, P)
    return select_strongest(crosscoder, values, poses).latents


def _refuse_not_finite(pre: torch.Tensor, P: int) -> None:
    """ArgumentError where pre-activations [B·P, ...] are not finite, which the maps are to blame for."""
    if bool(pre.sum(dtype=torch.float32).isfinite()):
        return
    bad = (~pre.isfinite()).flatten(1).any(1).nonzero().flatten()
    if bad.numel():
        image, position = divmod(int(bad[0]), P)
        raise argument_error(
            "maps",
            expected="finite numbers",
            got=f"NaN or infinity in {bad.numel()} examples, first image {image}, position {position}",
            remedy="Find the images behind these maps.",
        )
