"""The evidence for each latent's stabilizer: how sure it is, what it almost is, and what other estimates say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from groupcc.analysis.evidence.measured_on import MeasuredOn, choose_examples
from groupcc.analysis.evidence.moved_activations import measure_moved
from groupcc.analysis.evidence.nulls import Null, measure_null
from groupcc.analysis.evidence.resampling import measure_data
from groupcc.analysis.symmetry.autocorrelation import autocorrelation
from groupcc.analysis.symmetry.broken import Broken, find_broken, present_autocorrelation
from groupcc.analysis.symmetry.near_misses import NearMiss, limits, near_misses
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers, subgroup_scores, subgroup_types
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.data import as_orbits
from groupcc.groups import Group
from groupcc.models import GroupCrosscoder

__all__ = ["CONFIDENT", "EVIDENCE_EXAMPLES", "Estimate", "Evidence", "measure_evidence"]

CONFIDENT = 0.9
"""A stabilizer is unclear where fewer than this share of the resamples give it."""

EVIDENCE_EXAMPLES = 16384
"""Orbits at most that stabilizers are tested on."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Another estimate of the stabilizers: `autocorrelation` [L, G], `types` int8 [L] (an index into `subgroup_types`;
    −1 where it can't be said), `tolerance`."""

    autocorrelation: torch.Tensor
    types: torch.Tensor
    tolerance: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for and against each latent's stabilizer, made by [`analyze`][groupcc.analyze].

    - `group`, `stabilizers`, `tolerance`: those of the atlas.
    - `autocorrelation` [L, G]: C over the blocks that are there; the atlas's, but for broken latents.
    - `blocks` int8 [L, G]: 0 present, 1 weakened, 2 missing; 0 throughout for a latent that is not broken.
    - `null`: what interpolation and chance alone do, see [`Null`][groupcc.analysis.Null].
    - `encoder`: the same read off an encoder that reads all blocks; else None.
    - With orbits, else None: `activations`, from f(R_h a) against f(a), see `Responses`, and `activations_on`, the
      images that it was measured on (None in files from before this was kept); `data` [L, G], C of the decoder blocks
      that the data ask for, and `shares` [L, types], in which share of resamples of the images these have each type of
      subgroup (`type_names`), NaN where the latent fires too seldom; see `measure_data`.

    By latent: `confidence`, `near_misses`, `estimates`, `agreement`, `broken`, `unclear`.
    """

    group: Group
    stabilizers: list[Stabilizer]
    tolerance: float
    autocorrelation: torch.Tensor
    blocks: torch.Tensor
    null: Null
    encoder: Estimate | None = None
    activations: Estimate | None = None
    data: torch.Tensor | None = None
    shares: torch.Tensor | None = None
    activations_on: MeasuredOn | None = None

    @property
    def type_names(self) -> tuple[str, ...]:
        """The types of subgroup, as `shares` and `Null.chance` list them."""
        return subgroup_types(self.group)

    @cached_property
    def confidence(self) -> torch.Tensor | None:
        """Share of the resamples that give the latent's own type, [L]; NaN where unknown; None without orbits."""
        if self.shares is None:
            return None
        own = [self.type_names.index(s.name) if s.kind != "dead" else 0 for s in self.stabilizers]
        confidence = self.shares.gather(1, torch.tensor(own, dtype=torch.int64)[:, None])[:, 0]
        dead = torch.tensor([s.kind == "dead" for s in self.stabilizers], dtype=torch.bool)
        return torch.where(dead, torch.nan, confidence)

    @cached_property
    def near_misses(self) -> list[list[NearMiss]]:
        """The larger subgroups that each latent almost has, with the element it fails at; see `near_misses`."""
        return near_misses(self.autocorrelation, self.group, self.stabilizers, self.tolerance)

    @cached_property
    def estimates(self) -> list[dict[str, str | None]]:
        """Type of the stabilizer by "decoder", "encoder" and "activations"; None where it can't be said."""
        found = []
        for latent, stabilizer in enumerate(self.stabilizers):
            row: dict[str, str | None] = {"decoder": None if stabilizer.kind == "dead" else stabilizer.name}
            for name, estimate in (("encoder", self.encoder), ("activations", self.activations)):
                index = -1 if estimate is None else int(estimate.types[latent])
                row[name] = None if index < 0 else self.type_names[index]
            found.append(row)
        return found

    @cached_property
    def agreement(self) -> list[str | None]:
        """ "agree", or which of the other estimates differ from the decoder's ("encoder C1, activations C2"); None
        where there is nothing to compare."""
        found: list[str | None] = []
        for row in self.estimates:
            others = {name: other for name, other in row.items() if name != "decoder" and other is not None}
            differ = ", ".join(f"{name} {other}" for name, other in others.items() if other != row["decoder"])
            found.append(None if row["decoder"] is None or not others else differ or "agree")
        return found

    @cached_property
    def broken(self) -> list[Broken | None]:
        """How each latent's symmetry is broken; None for those that are whole. See `find_broken`."""
        found: list[Broken | None] = []
        for stabilizer, row in zip(self.stabilizers, self.blocks, strict=True):
            missing, weakened = ((row == state).nonzero()[:, 0].tolist() for state in (2, 1))
            told = Broken(stabilizer.name, missing, weakened, self.group.order)
            found.append(told if stabilizer.broken else None)
        return found

    @cached_property
    def unclear(self) -> list[str | None]:
        """Why a latent's stabilizer is unclear, in words; None where it is clear, and for a dead latent.

        With orbits: it fires in too few images, or less than `CONFIDENT` of the resamples give its type. Always: it
        scores no more than latents made of unrelated blocks, or its decision hangs on an element that interpolates and
        whose C is as near the limit 1 − tolerance as interpolation moves it (`Null.error`).
        """
        scores = subgroup_scores(self.autocorrelation, self.group)
        found: list[str | None] = []
        for latent, stabilizer in enumerate(self.stabilizers):
            found.append(None if stabilizer.kind == "dead" else self._doubt(latent, stabilizer, scores))
        return found

    def _doubt(self, latent: int, stabilizer: Stabilizer, scores: Any) -> str | None:
        if self.confidence is not None:
            confidence = float(self.confidence[latent])
            if math.isnan(confidence):
                return "too little data"
            if confidence < CONFIDENT:
                return f"{stabilizer.name} in {100 * confidence:.0f} % of resamples"
        chance = float(self.null.chance[self.type_names.index(stabilizer.name)])
        if stabilizer.order > 1 and stabilizer.score < chance - 1e-6:
            return f"unrelated blocks reach {chance:.2f}"
        own = limits(self.autocorrelation[latent], self.group, scores, latent, stabilizer.name)
        for limit in (own, *(miss.limit for miss in self.near_misses[latent])):
            if not limit.exact and abs(limit.value - (1.0 - self.tolerance)) < self.null.error:
                return f"{limit.element} {limit.value:.2f}, interpolation moves it by {self.null.error:.2f}"
        return None

    def columns(self, latent: int) -> dict[str, Any]:
        """What `Atlas.table` says of a latent."""
        confidence = math.nan if self.confidence is None else float(self.confidence[latent])
        misses, broken = self.near_misses[latent], self.broken[latent]
        activations = self.estimates[latent]["activations"]
        on = None if activations is None else self.activations_on
        return {
            "confidence": None if math.isnan(confidence) else round(confidence, 2),
            "unclear": self.unclear[latent],
            "near_miss": str(misses[0]) if misses else None,
            "stabilizer_encoder": self.estimates[latent]["encoder"],
            "stabilizer_activations": activations,
            "activations_on": None if on is None else on.seen,
            "agreement": self.agreement[latent],
            "broken": None if broken is None else str(broken),
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """What an atlas saves, by name; the stabilizers are in its other file."""
        numbers = [self.null.interpolation, self.null.control]
        found = {
            "evidence_autocorrelation": self.autocorrelation,
            "evidence_blocks": self.blocks,
            "evidence_null": torch.tensor([math.nan if x is None else x for x in numbers], dtype=torch.float64),
            "evidence_chance": self.null.chance,
        }
        for name, estimate in (("encoder", self.encoder), ("activations", self.activations)):
            if estimate is not None:
                found[f"evidence_{name}"] = estimate.autocorrelation
                found[f"evidence_{name}_types"] = estimate.types
                found[f"evidence_{name}_tolerance"] = torch.tensor(estimate.tolerance, dtype=torch.float64)
        if self.data is not None and self.shares is not None:
            found |= {"evidence_data": self.data, "evidence_shares": self.shares}
        if self.activations_on is not None:
            found["evidence_activations_on"] = self.activations_on.tensor()
        return found

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, torch.Tensor], group: Group, stabilizers: list[Stabilizer], tolerance: float
    ) -> Evidence | None:
        """From what `tensors` returned, among others; None where it is not there."""
        if "evidence_blocks" not in tensors:
            return None
        numbers = [None if math.isnan(x) else x for x in tensors["evidence_null"].tolist()]
        on = tensors.get("evidence_activations_on")
        return cls(
            group,
            stabilizers,
            tolerance,
            tensors["evidence_autocorrelation"],
            tensors["evidence_blocks"],
            Null(numbers[0], numbers[1], tensors["evidence_chance"]),
            _restored(tensors, "encoder"),
            _restored(tensors, "activations"),
            tensors.get("evidence_data"),
            tensors.get("evidence_shares"),
            None if on is None else MeasuredOn.from_tensor(on),
        )


def _restored(tensors: dict[str, torch.Tensor], name: str) -> Estimate | None:
    if f"evidence_{name}" not in tensors:
        return None
    types, tolerance = (tensors[f"evidence_{name}_{field}"] for field in ("types", "tolerance"))
    return Estimate(tensors[f"evidence_{name}"], types, float(tolerance))


def measure_evidence(
    crosscoder: GroupCrosscoder,
    W_LGD: torch.Tensor,
    C_LG: torch.Tensor,
    stabilizers: list[Stabilizer],
    blocks_LG: torch.Tensor,
    tolerance: float,
    *,
    left_out: torch.Tensor | None = None,
    orbits: Any = None,
    held_out: Any = None,
    control: Any = None,
    examples: int = EVIDENCE_EXAMPLES,
    batch_size: int = 1024,
    progress: bool = False,
) -> Evidence:
    """The evidence for the stabilizers and block states that `find_broken` returned for `crosscoder`.

    `W_LGD` its checked decoder, `C_LG` its autocorrelation; `orbits`, of which up to `examples` are read, `held_out`
    and `control` as `analyze` has them. Of a latent that fires too seldom on the images that its activation is measured
    on nothing is said: those that training saw are no substitute. The tolerances of the encoder and the activations are
    calibrated as the decoder's is, on latents not in `left_out` (bool [L]). Deterministic on the CPU.
    """
    group = crosscoder.group
    present = blocks_LG == 0
    shown = C_LG.clone()
    some = (~present).any(1)
    shown[some] = present_autocorrelation(W_LGD[some.to(W_LGD.device)], present[some], group).cpu().to(shown)
    alive = torch.tensor([stabilizer.kind != "dead" for stabilizer in stabilizers], dtype=torch.bool)
    asked = alive if left_out is None else alive & ~left_out
    encoder = activations = data = shares = on = None
    if crosscoder.config.encoder == "orbit" or crosscoder.config.tied:
        encoder = _encoder(crosscoder, group, alive, asked)
    if orbits is not None and examples > 0:
        source = as_orbits(orbits, group.order, crosscoder.config.d_in)
        sums = measure_data(
            crosscoder, source, W_LGD, present, examples=examples, batch_size=batch_size, progress=progress
        )
        data, shares = sums.autocorrelation().float(), sums.shares(tolerance)
        unseen, chosen, on = choose_examples(crosscoder, source, held_out, examples)
        moved = measure_moved(crosscoder, unseen, chosen, alive, batch_size=batch_size, progress=progress)
        activations = _activations(*moved.autocorrelation(), group, alive, asked)
    null = measure_null(W_LGD, shown, group, stabilizers, control)
    return Evidence(group, stabilizers, tolerance, shown, blocks_LG, null, encoder, activations, data, shares, on)


def _activations(
    R_LG: torch.Tensor, known: torch.Tensor, group: Group, alive: torch.Tensor, asked: torch.Tensor
) -> Estimate:
    known = alive & known
    tolerance = calibrate_tolerance(R_LG[known & asked], group)
    return Estimate(R_LG, _types(find_stabilizers(R_LG, group, tolerance, ~known), group), tolerance)


def _encoder(crosscoder: GroupCrosscoder, group: Group, alive: torch.Tensor, asked: torch.Tensor) -> Estimate:
    """Of W_enc [G, D, L], as of the decoder, broken blocks and all."""
    W_LGD = crosscoder.W_enc.detach().permute(2, 0, 1).float()
    C_LG = autocorrelation(W_LGD, group).cpu()
    alive = alive & (C_LG[:, 0] > 0)
    tolerance = calibrate_tolerance(C_LG[alive & asked], group)
    found, _ = find_broken(W_LGD, group, find_stabilizers(C_LG, group, tolerance, ~alive), left_out=~asked)
    return Estimate(C_LG, _types(found, group), tolerance)


def _types(stabilizers: list[Stabilizer], group: Group) -> torch.Tensor:
    names = subgroup_types(group)
    return torch.tensor([-1 if s.kind == "dead" else names.index(s.name) for s in stabilizers], dtype=torch.int8)
