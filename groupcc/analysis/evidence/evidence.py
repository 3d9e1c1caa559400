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
from groupcc.analysis.numbers import percent
from groupcc.analysis.options import Options
from groupcc.analysis.part import Note, Part
from groupcc.analysis.symmetry.broken import Broken, find_broken, present_autocorrelation
from groupcc.analysis.symmetry.near_misses import NearMiss, limits, near_misses
from groupcc.analysis.symmetry.stabilizers import (
    Stabilizer,
    SubgroupScores,
    find_stabilizers,
    subgroup_scores,
    subgroup_types,
)
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.data import Orbits
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import autocorrelation
from groupcc.models import GroupCrosscoder

__all__ = ["CONFIDENT", "Estimate", "Evidence"]

CONFIDENT = 0.9
"""A stabilizer is unclear if fewer than this share of the resamples give it."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """Another estimate of the stabilizers: `autocorrelation` [L, G], `types` int8 [L] (an index into `subgroup_types`;
    −1 if it can't be said), `tolerance`."""

    autocorrelation: torch.Tensor
    types: torch.Tensor
    tolerance: float


@dataclass(frozen=True, eq=False)
class Evidence(Part):
    """What speaks for and against each latent's stabilizer, made by [`analyze`][groupcc.analyze].

    - `group`, `stabilizers`, `tolerance`: those of the atlas.
    - `autocorrelation` [L, G]: C over the blocks that are present. It differs from the atlas's for broken latents.
    - `blocks` int8 [L, G]: 0 present, 1 weakened, 2 missing; 0 throughout for a latent that is not broken.
    - `null`: what interpolation and chance do by themselves, see [`Null`][groupcc.analysis.Null].
    - `encoder`: the same read off an encoder that reads all blocks; else None.
    - With orbits, else None: `activations`, from f(R_h a) beside f(a), see `MovedActivations`; `activations_on`, the
      images on which it was measured (None in files from before this was kept); `data` [L, G], C of the decoder blocks
      that the data ask for; `shares` [L, types], in which share of resamples of the images these blocks have each type
      of subgroup (`type_names`), NaN if the latent fires too seldom. See `measure_data`.

    By latent: `confidence`, `near_misses`, `estimates`, `agreement`, `broken`, `unclear`.
    """

    group: PlanarGroup
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

    @classmethod
    def measure(
        cls, crosscoder: GroupCrosscoder, symmetries: Symmetries, orbits: Orbits | None, options: Options
    ) -> Evidence:
        """The evidence for what `read_symmetries` returned for `crosscoder`.

        `Options.evidence_examples` of the orbits are read. If a latent fires too seldom on the images that its
        activation is measured on, nothing is said of it: images that training saw are no substitute. The tolerances of
        the encoder and of the activations are calibrated as the decoder's is. Deterministic on the CPU.
        """
        S, group = symmetries, symmetries.group
        present = S.block_states == 0
        shown = S.autocorrelation.clone()
        some = (~present).any(1)
        present_C = present_autocorrelation(S.W_dec_LGD[some.to(S.W_dec_LGD.device)], present[some], group)
        shown[some] = present_C.cpu().to(shown)
        encoder = (
            _of_encoder(crosscoder, S) if crosscoder.config.encoder == "orbit" or crosscoder.form.has_poses else None
        )
        activations = data = shares = on = None
        examples = options.evidence_examples
        if orbits is not None and examples > 0:
            size, bar = options.batch_size, options.progress
            sums = measure_data(
                crosscoder, orbits, S.W_dec_LGD, present, examples=examples, batch_size=size, progress=bar
            )
            data, shares = sums.autocorrelation().float(), sums.shares(S.tolerance)
            unseen, chosen, on = choose_examples(crosscoder, orbits, options.held_out, examples)
            moved = measure_moved(crosscoder, unseen, chosen, S.live, batch_size=size, progress=bar)
            activations = _of_activations(*moved.autocorrelation(), S)
        null = measure_null(S.W_dec_LGD, shown, group, S.stabilizers, options.control)
        return cls(
            group, S.stabilizers, S.tolerance, shown, S.block_states, null, encoder, activations, data, shares, on
        )

    @property
    def type_names(self) -> tuple[str, ...]:
        """The types of subgroup, as `shares` and `Null.chance` list them."""
        return subgroup_types(self.group)

    @cached_property
    def confidence(self) -> torch.Tensor | None:
        """Share of the resamples that give the latent's own type, [L]; NaN if unknown; None without orbits."""
        if self.shares is None:
            return None
        own = [self.type_names.index(s.name) if s.kind != "dead" else 0 for s in self.stabilizers]
        confidence = self.shares.gather(1, torch.tensor(own, dtype=torch.int64)[:, None])[:, 0]
        dead = torch.tensor([s.kind == "dead" for s in self.stabilizers], dtype=torch.bool)
        return torch.where(dead, torch.nan, confidence)

    @cached_property
    def near_misses(self) -> list[list[NearMiss]]:
        """The larger subgroups that each latent almost has, with the element at which each fails; see `near_misses`."""
        return near_misses(self.autocorrelation, self.group, self.stabilizers, self.tolerance)

    @cached_property
    def estimates(self) -> list[dict[str, str | None]]:
        """Type of the stabilizer by "decoder", "encoder" and "activations"; None if it can't be said."""
        estimates = []
        for latent, stabilizer in enumerate(self.stabilizers):
            row: dict[str, str | None] = {"decoder": None if stabilizer.kind == "dead" else stabilizer.name}
            for name, estimate in (("encoder", self.encoder), ("activations", self.activations)):
                index = -1 if estimate is None else int(estimate.types[latent])
                row[name] = None if index < 0 else self.type_names[index]
            estimates.append(row)
        return estimates

    @cached_property
    def agreement(self) -> list[str | None]:
        """ "agree", or which of the other estimates differ from the decoder's ("encoder C1, activations C2"); None if
        there is nothing to compare."""
        agreement: list[str | None] = []
        for row in self.estimates:
            others = {name: other for name, other in row.items() if name != "decoder" and other is not None}
            differ = ", ".join(f"{name} {other}" for name, other in others.items() if other != row["decoder"])
            agreement.append(None if row["decoder"] is None or not others else differ or "agree")
        return agreement

    @cached_property
    def broken(self) -> list[Broken | None]:
        """How each latent's symmetry is broken; None for a latent that is whole. See `find_broken`."""
        broken: list[Broken | None] = []
        for stabilizer, row in zip(self.stabilizers, self.blocks, strict=True):
            missing, weakened = ((row == state).nonzero()[:, 0].tolist() for state in (2, 1))
            blocks = Broken(stabilizer.name, missing, weakened, self.group.order)
            broken.append(blocks if stabilizer.broken else None)
        return broken

    @cached_property
    def unclear(self) -> list[str | None]:
        """Why a latent's stabilizer is unclear, in words; None if it is clear, and for a dead latent.

        With orbits: the latent fires in too few images, or less than `CONFIDENT` of the resamples give its type.
        Always: it scores no more than latents made of unrelated blocks; or its decision depends on an element that
        interpolates, and C there is as near the limit 1 − tolerance as interpolation moves it (`Null.error`).
        """
        scores = subgroup_scores(self.autocorrelation, self.group)
        return [
            None if stabilizer.kind == "dead" else self._doubt(latent, stabilizer, scores)
            for latent, stabilizer in enumerate(self.stabilizers)
        ]

    def _doubt(self, latent: int, stabilizer: Stabilizer, scores: SubgroupScores) -> str | None:
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

    def notes(self, latent: int) -> list[Note]:
        row = self.columns(latent)
        unclear, confidence = row["unclear"] or "", row["confidence"]
        sentences = [f"Unclear: {unclear}."] if unclear else []
        # If that share is why it is unclear, the sentence above has it.
        if confidence is not None and "resamples" not in unclear:
            sentences.append(f"In {percent(confidence)} of resamples of the images its stabilizer is the same.")
        if row["near_miss"]:
            sentences.append(f"Near miss: {row['near_miss']}.")
        if row["broken"]:
            sentences.append(f"Its symmetry is {row['broken']}.")
        return [Note("certainty", sentence) for sentence in sentences]

    def tensors(self) -> dict[str, torch.Tensor]:
        numbers = [self.null.interpolation, self.null.control]
        tensors = {
            "evidence_autocorrelation": self.autocorrelation,
            "evidence_blocks": self.blocks,
            "evidence_null": torch.tensor([math.nan if x is None else x for x in numbers], dtype=torch.float64),
            "evidence_chance": self.null.chance,
        }
        for name, estimate in (("encoder", self.encoder), ("activations", self.activations)):
            if estimate is not None:
                tensors[f"evidence_{name}"] = estimate.autocorrelation
                tensors[f"evidence_{name}_types"] = estimate.types
                tensors[f"evidence_{name}_tolerance"] = torch.tensor(estimate.tolerance, dtype=torch.float64)
        if self.data is not None and self.shares is not None:
            tensors |= {"evidence_data": self.data, "evidence_shares": self.shares}
        if self.activations_on is not None:
            tensors["evidence_activations_on"] = self.activations_on.tensor()
        return tensors

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, torch.Tensor], group: PlanarGroup, stabilizers: list[Stabilizer], tolerance: float
    ) -> Evidence | None:
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


def _of_activations(R_LG: torch.Tensor, known: torch.Tensor, symmetries: Symmetries) -> Estimate:
    """Returns what the activations' R [L, G] say of the latents `known` (bool [L])."""
    group, known = symmetries.group, known & symmetries.live
    tolerance = calibrate_tolerance(R_LG[known & ~symmetries.left_out], group)
    return Estimate(R_LG, _types(find_stabilizers(R_LG, group, tolerance, ~known), group), tolerance)


def _of_encoder(crosscoder: GroupCrosscoder, symmetries: Symmetries) -> Estimate:
    """Returns what W_enc says, read as the decoder is, broken blocks too."""
    group, left_out = symmetries.group, symmetries.left_out
    W_LGD = crosscoder.W_enc.detach().float()
    C_LG = autocorrelation(W_LGD, group).cpu()
    alive = symmetries.live & (C_LG[:, 0] > 0)
    tolerance = calibrate_tolerance(C_LG[alive & ~left_out], group)
    stabilizers, _ = find_broken(W_LGD, group, find_stabilizers(C_LG, group, tolerance, ~alive), left_out=left_out)
    return Estimate(C_LG, _types(stabilizers, group), tolerance)


def _types(stabilizers: list[Stabilizer], group: PlanarGroup) -> torch.Tensor:
    names = subgroup_types(group)
    return torch.tensor([-1 if s.kind == "dead" else names.index(s.name) for s in stabilizers], dtype=torch.int8)
