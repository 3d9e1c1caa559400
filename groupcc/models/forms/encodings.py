"""The encoder at work on one batch: what it reads, and pre-activations of every latent in every pose."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from groupcc import ops
from groupcc.errors import argument_error
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents

__all__ = ["Encoding", "FormedEncoding", "GroupEncoding", "MapEncoding", "Reading", "refuse_maps_not_finite"]


class Reading:
    """The encoder at work on one batch of activations; a form makes one for each forward pass."""

    def encode(self) -> Encoded:
        """Returns the chosen latents. ArgumentError if the activations are not finite."""
        raise NotImplementedError

    def strongest(self, latents_M: Tensor, k: int) -> SparseLatents:
        """Returns the k largest of these latents in each example, each in its strongest pose, with gradients."""
        raise NotImplementedError


class Encoding(Protocol):
    """Pre-activations z of every base latent in every pose, for one batch; some ways to them keep no z in memory.

    `pre_acts`, and `strongest` of all latents, raise ArgumentError if the activations are not finite.
    """

    def pre_acts(self) -> Tensor:
        """Returns z [N, L, G]."""
        ...

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Returns the largest z over the poses, and the pose that has it, of these latents (None: all): [N, n] each."""
        ...

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        """Returns latents that were chosen from z, with the gradients of their acts if z itself has none."""
        ...


class FormedEncoding:
    """An `Encoding` of pre-activations that are in memory, with their gradients."""

    def __init__(self, cc: Dictionary, acts_NGD: Tensor, z_NLG: Tensor) -> None:
        self.cc, self.acts_NGD, self.z_NLG = cc, acts_NGD, z_NLG

    def pre_acts(self) -> Tensor:
        self.cc.check_finite(self.acts_NGD)
        return self.z_NLG

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if latents is None:
            self.cc.check_finite(self.acts_NGD)
        values, poses = (self.z_NLG if latents is None else self.z_NLG[:, latents]).max(2)
        return values, poses

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        return latents


class GroupEncoding:
    """The `Encoding` of activations [N, G, D] by `ops.group_encoding`. `chosen`: as there."""

    def __init__(self, cc: Dictionary, acts_NGD: Tensor, chosen: int | None) -> None:
        dtype, self.cc, self.acts_NGD = acts_NGD.dtype, cc, acts_NGD
        self.by_ops = ops.group_encoding(acts_NGD, cc.W_enc.to(dtype), cc.b_enc.to(dtype), cc.group, chosen)

    def pre_acts(self) -> Tensor:
        self.cc.check_finite(self.acts_NGD)
        return self.by_ops.pre_acts()

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values, poses = self.by_ops.strongest(latents)
        if latents is None:
            # Every pose reads every block. So a row that is not finite has no finite value.
            self.cc.check_finite(self.acts_NGD, values)
        return values, poses

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        assert latents.poses is not None
        return latents._replace(acts=self.by_ops.with_gradients(latents.indices, latents.poses, latents.acts))


class MapEncoding:
    """The `Encoding` of the orbits in feature maps by `ops.orbit_encoding`."""

    def __init__(self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str, chosen: int | None) -> None:
        dtype, self.maps, self.P = cc.compute_dtype(maps), maps, points.shape[1]
        W_LGD, b_L = cc.W_enc.to(dtype), cc.b_enc.to(dtype)
        self.by_ops = ops.orbit_encoding(maps, points, W_LGD, b_L, cc.group, interpolation, chosen)

    def pre_acts(self) -> Tensor:
        z_NLG = self.by_ops.pre_acts()
        refuse_maps_not_finite(self.maps, z_NLG, self.P)
        return z_NLG

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        values, poses = self.by_ops.strongest(latents)
        if latents is None:
            refuse_maps_not_finite(self.maps, values, self.P)
        return values, poses

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        assert latents.poses is not None
        return latents._replace(acts=self.by_ops.with_gradients(latents.indices, latents.poses, latents.acts))


def refuse_maps_not_finite(maps: Tensor, pre: Tensor, P: int) -> None:
    """ArgumentError if `maps` are not finite, as seen in the pre-activations [B·P, ...] at P positions of each."""
    # A sum is finite only if every term is. Infinite weights, or an overflow, are not the fault of the maps.
    if bool(pre.sum(dtype=torch.float32).isfinite()) or bool(maps.isfinite().all()):
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
