"""The encoder at work on one batch: what it reads, and pre-activations of every latent in every pose, formed or not."""

from __future__ import annotations

from collections.abc import Callable
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
        return _largest(self.z_NLG, latents)

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        return latents


class GroupEncoding:
    """The `Encoding` z = group_correlate(a, W) + b, without what need not be in memory or have gradients.

    `chosen`: how many latents of an example will get gradients by `with_gradients`; None: gradients go through z. The
    questions to the dispatch of ops stand here and in `MapEncoding` alone.
    """

    def __init__(self, cc: Dictionary, acts_NGD: Tensor, chosen: int | None) -> None:
        dtype, self.cc, self.group = acts_NGD.dtype, cc, cc.group
        self.acts_NGD, self.W_LGD, self.b_L = acts_NGD, cc.W_enc.to(dtype), cc.b_enc.to(dtype)
        self.gradients_later = (
            chosen is not None
            and torch.is_grad_enabled()
            and ops.sparse_gradient_pays(acts_NGD, self.W_LGD, chosen, self.group)
        )
        self.z_NLG: Tensor | None = None

    def pre_acts(self) -> Tensor:
        if self.z_NLG is None:
            self.cc.check_finite(self.acts_NGD)
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.gradients_later):
                self.z_NLG = ops.group_correlate(self.acts_NGD, self.W_LGD, self.group) + self.b_L[:, None]
        return self.z_NLG

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        given = self.acts_NGD, self.W_LGD, self.b_L
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.gradients_later):
            if latents is None and not ops.keeps_no_poses(*given, self.group):
                self.pre_acts()
            if self.z_NLG is not None:
                return _largest(self.z_NLG, latents)
            if latents is not None:
                return ops.group_correlate_max(given[0], given[1][latents], given[2][latents], self.group)
            values, poses = ops.group_correlate_max(*given, self.group)
        # Every pose reads all blocks: what is not finite in the activations isn't in the values either.
        self.cc.check_finite(self.acts_NGD, values)
        return values, poses

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        if not self.gradients_later:
            return latents
        assert latents.poses is not None
        chosen = latents.indices, latents.poses
        known = latents.acts.detach()
        acts = ops.group_encode_at(self.acts_NGD, self.W_LGD, self.b_L, *chosen, self.group, known=known)
        return latents._replace(acts=acts)


class MapEncoding:
    """The `Encoding` of the orbits in feature maps: by a kernel that reads them there, else `of_acts` of gathered
    orbits."""

    def __init__(
        self, cc: Dictionary, maps: Tensor, points: Tensor, interpolation: str, of_acts: Callable[[Tensor], Encoding]
    ) -> None:
        self.cc, self.given, self.of_acts = cc, (maps, points, interpolation), of_acts
        self.gathered: Encoding | None = None

    def pre_acts(self) -> Tensor:
        maps, points, W_LGD, b_L, interpolation = self._cast()
        if not ops.keeps_no_orbits(maps, points, W_LGD, None, self.cc.group, interpolation):
            return self._gather().pre_acts()
        z_NLG = ops.orbit_correlate(maps, points, W_LGD, self.cc.group, interpolation) + b_L[:, None]
        refuse_maps_not_finite(z_NLG, points.shape[1])
        return z_NLG

    def strongest(self, latents: Tensor | None = None) -> tuple[Tensor, Tensor]:
        maps, points, W_LGD, b_L, interpolation = self._cast()
        if latents is not None or not ops.keeps_no_orbits(maps, points, W_LGD, b_L, self.cc.group, interpolation):
            return self._gather().strongest(latents)
        values, poses = ops.orbit_correlate_max(maps, points, W_LGD, b_L, self.cc.group, interpolation)
        refuse_maps_not_finite(values, points.shape[1])
        return values, poses

    def with_gradients(self, latents: SparseLatents) -> SparseLatents:
        return latents if self.gathered is None else self.gathered.with_gradients(latents)

    def _cast(self) -> tuple[Tensor, Tensor, Tensor, Tensor, str]:
        (maps, points, interpolation), cc = self.given, self.cc
        dtype = cc.compute_dtype(maps)
        return maps.to(dtype), points, cc.W_enc.to(dtype), cc.b_enc.to(dtype), interpolation

    def _gather(self) -> Encoding:
        if self.gathered is None:
            self.gathered = self.of_acts(self.cc.accept(ops.orbit_gather(*self.given)))
        return self.gathered


def _largest(z_NLG: Tensor, latents: Tensor | None) -> tuple[Tensor, Tensor]:
    """Returns the largest over poses, of these latents (None: all), and the pose that has it."""
    values, poses = (z_NLG if latents is None else z_NLG[:, latents]).max(2)
    return values, poses


def refuse_maps_not_finite(pre: Tensor, P: int) -> None:
    """ArgumentError if pre-activations [B·P, ...] are not finite, which the maps are to blame for."""
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
