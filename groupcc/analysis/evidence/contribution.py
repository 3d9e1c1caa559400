"""What each latent contributes to the reconstruction, and which latents are spare: they fire and explain nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from groupcc.analysis.part import Note, Part
from groupcc.models import GroupCrosscoder, SparseLatents

__all__ = ["SPARE", "Contribution", "ContributionSums"]

SPARE = 0.05
"""A latent whose share is below this part of the typical one is spare."""


@dataclass(frozen=True, eq=False)
class Contribution(Part):
    """How much worse the reconstruction would be without a latent, where it fires.

    With e = a − â an example's error and f_l d_l what latent l writes there, leaving l out makes ‖e‖² grow by

        gain = ‖e + f_l d_l‖² − ‖e‖² = 2 f_l ⟨d_l, e⟩ + f_l² ‖d_l‖².

    - `share` fp32 [L]: the mean gain over the examples where l is active, over the mean of ‖a − b_dec‖² over all
      examples. How often l fires plays no part: a rare latent may have a large share. If it is below 0, leaving l out
      would help. NaN if l never fired, and if every a = b_dec. If latents have poses, each pose in which l is active is
      left out by itself.
    - `typical`: the mean of the shares above 0, each weighted by its latent's Σ gain. It is the share of the latent
      that explained a piece of the reconstruction drawn at random. Any number of spare latents hardly lowers it, as it
      would a plain mean. Example: shares 0.4, 0.2 with Σ gain 3, 1, and ten of 0.001 with 0.001 have a typical share of
      0.35. NaN if nothing is explained.
    - `spare` bool [L]: fires, with a share below `SPARE` · `typical`.

    Latents become spare if the budget is larger than what there is to explain. With top-k each example must have k
    latents, and one for which nothing is left takes a sliver of noise, or of what the others missed. The decoders of
    spare latents, and so their symmetries, say little about the network.
    """

    share: torch.Tensor
    typical: float
    spare: torch.Tensor

    @classmethod
    def measure(cls, measured_contribution: Contribution | None) -> Contribution | None:
        return measured_contribution

    def columns(self, latent: int) -> dict[str, Any]:
        share = float(self.share[latent])
        return {"contribution": None if math.isnan(share) else round(share, 6), "spare": bool(self.spare[latent])}

    def notes(self, latent: int) -> list[Note]:
        words = "Spare: it fires, but explains next to nothing, so its symmetry says little about the network."
        return [Note("worth", words)] if bool(self.spare[latent]) else []

    def tensors(self) -> dict[str, torch.Tensor]:
        typical = torch.tensor([self.typical], dtype=torch.float64)
        return {"contribution_share": self.share, "contribution_typical": typical, "contribution_spare": self.spare}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Contribution | None:
        if "contribution_share" not in tensors:
            return None
        share, typical, spare = (tensors[f"contribution_{name}"] for name in cls.__dataclass_fields__)
        return cls(share, float(typical), spare)


class ContributionSums:
    """Sums over batches from which `Contribution` follows: each latent's gains and firings; fp64 on the CPU."""

    def __init__(self, crosscoder: GroupCrosscoder) -> None:
        self.crosscoder, self.b_dec = crosscoder, crosscoder.form.decoder_bias(crosscoder).detach()
        self.gain = torch.zeros(crosscoder.config.n_latents, dtype=torch.float64)
        self.fired = torch.zeros(crosscoder.config.n_latents, dtype=torch.int64)
        self.power, self.examples = 0.0, 0

    @torch.no_grad()
    def add(self, acts_NGD: torch.Tensor, reconstruction_NGD: torch.Tensor, latents: SparseLatents) -> None:
        """One batch of activations, their reconstructions, and the latents active in them."""
        acts = acts_NGD.to(self.b_dec)
        error = acts - reconstruction_NGD.to(self.b_dec)
        self.power += float((acts - self.b_dec).square().sum(dtype=torch.float64))
        self.examples += len(acts)
        # One column at a time: the decoders of all active latents of all examples need not fit in memory.
        for column in range(latents.indices.shape[1]):
            active = (latents.acts[:, column] > 0).nonzero()[:, 0]
            which = latents.indices[active, column]
            poses = None if latents.poses is None else latents.poses[active, column]
            strength = latents.acts[active, column, None, None].to(self.b_dec)
            written = strength * self.crosscoder.form.decoder_rows(self.crosscoder, which, poses)
            gain = (written * (2 * error[active] + written)).flatten(1).sum(1)
            self.gain.index_add_(0, which.cpu(), gain.double().cpu())
            self.fired += torch.bincount(which.cpu(), minlength=len(self.fired))

    def result(self) -> Contribution:
        """Returns what follows from the batches so far."""
        share = self.gain / self.fired / (self.power / self.examples if self.power > 0 else math.nan)
        weight = self.gain.clamp_min(0.0)
        typical = float((weight * share.nan_to_num()).sum() / weight.sum())
        return Contribution(share.float(), typical, share < SPARE * typical)
