"""What each latent contributes to the reconstruction, and which latents are spare: they fire, and explain nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from groupcc.groups.tables import translation_table
from groupcc.models import GroupCrosscoder, SparseLatents

__all__ = ["SPARE", "Contribution", "ContributionSums"]

SPARE = 0.05
"""A latent whose share is below this part of the typical one is spare."""


@dataclass(frozen=True, eq=False)
class Contribution:
    """How much worse the reconstruction would be without a latent, where it fires.

    With e = a − â an example's error and f_l d_l what latent l writes there, leaving l out makes ‖e‖² grow by

        gain = ‖e + f_l d_l‖² − ‖e‖² = 2 f_l ⟨d_l, e⟩ + f_l² ‖d_l‖².

    - `share` fp32 [L]: the mean gain over the examples where l is active, over the mean of ‖a − b_dec‖² over all
      examples. How often l fires plays no part: a rare latent may have a large share. Below 0, leaving it out would
      help. NaN where it never fired, and where every a = b_dec. Of a tied crosscoder each pose that a base latent is
      active in is left out by itself.
    - `typical`: the mean of the shares above 0, each weighted by its latent's Σ gain, so that of the latent by which a
      piece of the reconstruction, drawn at random, was explained. Spare latents hardly lower it, however many they
      are, as they would a plain mean. NaN where nothing is explained.
    - `spare` bool [L]: fires, with a share below `SPARE` · `typical`.

    Latents come to be spare where the budget is larger than what is there: with top-k each example must have k of
    them, and those that find nothing left take a sliver of noise, or of what the others missed. Their decoders, and so
    their symmetries, say little about the network.
    """

    share: torch.Tensor
    typical: float
    spare: torch.Tensor

    def columns(self, latent: int) -> dict[str, Any]:
        """What `Atlas.table` says of a latent: its share, and whether it is spare."""
        share = float(self.share[latent])
        return {"contribution": None if math.isnan(share) else round(share, 6), "spare": bool(self.spare[latent])}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its fields by the names that an atlas saves them under."""
        typical = torch.tensor([self.typical], dtype=torch.float64)
        return {"contribution_share": self.share, "contribution_typical": typical, "contribution_spare": self.spare}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Contribution | None:
        """From what `tensors` returned, among others; None where it is not there."""
        if "contribution_share" not in tensors:
            return None
        share, typical, spare = (tensors[f"contribution_{name}"] for name in cls.__dataclass_fields__)
        return cls(share, float(typical), spare)


class ContributionSums:
    """Sums over batches from which `Contribution` follows: each latent's gains and firings; fp64 on the CPU."""

    def __init__(self, crosscoder: GroupCrosscoder) -> None:
        config, self.group = crosscoder.config, crosscoder.group
        # Atoms with residuals are no translates of one another: they are written out.
        dictionary = crosscoder.untie() if config.tied == "residual" else crosscoder
        self.W_dec, self.b_dec = dictionary.W_dec.detach(), dictionary.b_dec.detach()
        self.translates = config.tied is True
        self.gain = torch.zeros(config.n_latents, dtype=torch.float64)
        self.fired = torch.zeros(config.n_latents, dtype=torch.int64)
        self.power, self.examples = 0.0, 0

    @torch.no_grad()
    def add(self, acts_NGD: torch.Tensor, reconstruction_NGD: torch.Tensor, latents: SparseLatents) -> None:
        """One batch of activations, their reconstructions, and the latents active in them."""
        acts = acts_NGD.to(self.W_dec)
        error = acts - reconstruction_NGD.to(self.W_dec)
        self.power += float((acts - self.b_dec).square().sum(dtype=torch.float64))
        self.examples += len(acts)
        # One column at a time: the decoders of all active latents of all examples need not fit in memory.
        for column in range(latents.indices.shape[1]):
            active = (latents.acts[:, column] > 0).nonzero()[:, 0]
            which = latents.indices[active, column]
            written = latents.acts[active, column, None, None].to(self.W_dec) * self._decoders(latents, active, column)
            gain = (written * (2 * error[active] + written)).flatten(1).sum(1)
            self.gain.index_add_(0, which.cpu(), gain.double().cpu())
            self.fired += torch.bincount(which.cpu(), minlength=len(self.fired))

    def _decoders(self, latents: SparseLatents, active: torch.Tensor, column: int) -> torch.Tensor:
        """d of these examples' latents in the poses that they are active in, [n, G, D]."""
        which = latents.indices[active, column]
        if latents.poses is None:
            return self.W_dec[which]
        poses = latents.poses[active, column]
        if not self.translates:
            return self.W_dec[which * self.group.order + poses]
        return self.W_dec[which[:, None], translation_table(self.group, self.W_dec.device)[poses]]

    def result(self) -> Contribution:
        """What follows from the batches so far."""
        share = self.gain / self.fired / (self.power / self.examples if self.power > 0 else math.nan)
        weight = self.gain.clamp_min(0.0)
        typical = float((weight * share.nan_to_num()).sum() / weight.sum())
        return Contribution(share.float(), typical, share < SPARE * typical)
