"""The evidence for each latent's stabilizer: how sure it is, what it almost is, and what other estimates say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from groupcc.analysis.evidence.labels import Labels
from groupcc.analysis.evidence.measured_on import MeasuredOn, choose_examples
from groupcc.analysis.evidence.moved_activations import measure_moved
from groupcc.analysis.evidence.nulls import Null
from groupcc.analysis.numbers import percent
from groupcc.analysis.options import Options
from groupcc.analysis.part import Note, Part
from groupcc.analysis.symmetry.broken import Broken, find_broken
from groupcc.analysis.symmetry.modulated import without_noise
from groupcc.analysis.symmetry.near_misses import NearMiss, near_misses
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers, subgroup_types
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.data import Orbits
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import autocorrelation
from groupcc.models import GroupCrosscoder

__all__ = ["Estimate", "Evidence"]


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

    - `group`, `stabilizers`, `tolerance`: those of the atlas. How a label is reached: `read_labels`.
    - `autocorrelation` [L, G]: C of the decoder over the blocks that are present. It differs from the atlas's for
      broken latents.
    - `blocks` int8 [L, G]: 0 present, 1 weakened, 2 missing; 0 throughout for a latent that is not broken.
    - `null`: what interpolation and chance do by themselves, see [`Null`][groupcc.analysis.Null].
    - `encoder`: the same read off an encoder that reads all blocks; else None.
    - With orbits, else None: `activations`, from f(R_h a) beside f(a), see `MovedActivations`; `activations_on`, the
      images on which it was measured (None in files from before this was kept); `data` [L, G], C of the decoder blocks
      that the data ask for; `shares` [L, types], in which share of resamples of the images and of the tolerance these
      blocks have each type of subgroup (`type_names`), NaN if the latent fires too seldom. See `measure_data`.
    - `decoder` int8 [L]: the type that the decoder says by itself; −1 if dead. None in files from before labels came
      from the data.

    By latent: `stability`, `near_misses`, `estimates`, `agreement`, `broken`, `undecided`.
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
    decoder: torch.Tensor | None = None

    @classmethod
    def measure(
        cls,
        crosscoder: GroupCrosscoder,
        symmetries: Symmetries,
        labels: Labels,
        null: Null,
        present_C: torch.Tensor,
        orbits: Orbits | None,
        options: Options,
    ) -> Evidence:
        """The evidence for the labels of the latents. `symmetries`: with these labels. `present_C`: C over the blocks
        that are present.

        `Options.evidence_examples` of the orbits are read. If a latent fires too seldom on the images that its
        activation is measured on, nothing is said of it: images that training saw are no substitute. The tolerances of
        the encoder and of the activations are calibrated as the decoder's is. Deterministic on the CPU.
        """
        S, group = symmetries, symmetries.group
        encoder = (
            _of_encoder(crosscoder, S) if crosscoder.config.encoder == "orbit" or crosscoder.form.has_poses else None
        )
        activations = on = None
        examples = options.evidence_examples
        if orbits is not None and examples > 0:
            size, bar = options.batch_size, options.progress
            unseen, chosen, on = choose_examples(crosscoder, orbits, options.held_out, examples)
            moved = measure_moved(crosscoder, unseen, chosen, S.live, batch_size=size, progress=bar)
            activations = _of_activations(*moved.autocorrelation(), S)
        return cls(
            group=group,
            stabilizers=S.stabilizers,
            tolerance=S.tolerance,
            autocorrelation=present_C,
            blocks=S.block_states,
            null=null,
            encoder=encoder,
            activations=activations,
            data=labels.data,
            shares=labels.shares,
            activations_on=on,
            decoder=labels.decoder,
        )

    @property
    def type_names(self) -> tuple[str, ...]:
        """The types of subgroup, as `shares` and `Null.chance` list them."""
        return subgroup_types(self.group)

    @cached_property
    def stability(self) -> torch.Tensor | None:
        """Share of the resamples that give the latent's own type, [L]; NaN if unknown; None without orbits."""
        if self.shares is None:
            return None
        own = [self.type_names.index(s.name) if s.kind != "dead" else 0 for s in self.stabilizers]
        stability = self.shares.gather(1, torch.tensor(own, dtype=torch.int64)[:, None])[:, 0]
        dead = torch.tensor([s.kind == "dead" for s in self.stabilizers], dtype=torch.bool)
        return torch.where(dead, torch.nan, stability)

    @cached_property
    def near_misses(self) -> list[list[NearMiss]]:
        """The larger subgroups that each latent almost has, with the element at which each fails; see `near_misses`."""
        return near_misses(self.read_from, self.group, self.stabilizers, self.tolerance)

    @cached_property
    def read_from(self) -> torch.Tensor:
        """The C that labels were read from, fp64 [L, G]: that of the data where they say something of the latent, else
        the decoder's less its noise."""
        read = without_noise(self.autocorrelation, self.group)
        if self.data is None or self.shares is None:
            return read
        return torch.where(self.shares.isnan().any(1, keepdim=True), read, self.data.double())

    @cached_property
    def estimates(self) -> list[dict[str, str | None]]:
        """Type of the stabilizer by "label", "decoder", "encoder" and "activations"; None if it can't be said."""
        estimates = []
        for latent, stabilizer in enumerate(self.stabilizers):
            own = None if stabilizer.kind == "dead" else stabilizer.name
            row: dict[str, str | None] = {"label": own, "decoder": own}
            if self.decoder is not None:
                row["decoder"] = self._type(int(self.decoder[latent]))
            for name, estimate in (("encoder", self.encoder), ("activations", self.activations)):
                row[name] = None if estimate is None else self._type(int(estimate.types[latent]))
            estimates.append(row)
        return estimates

    def _type(self, index: int) -> str | None:
        return None if index < 0 else self.type_names[index]

    @cached_property
    def agreement(self) -> list[str | None]:
        """ "agree", or which of the other estimates differ from the label ("encoder C1, activations C2"); None if there
        is nothing to compare."""
        agreement: list[str | None] = []
        for row in self.estimates:
            others = {name: other for name, other in row.items() if name != "label" and other is not None}
            differ = ", ".join(f"{name} {other}" for name, other in others.items() if other != row["label"])
            agreement.append(None if row["label"] is None or len(others) < 2 else differ or "agree")
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

    @property
    def undecided(self) -> list[str | None]:
        """Why a latent's label is not stated, in words (`read_labels`); None if it is, and for a dead latent."""
        return [stabilizer.reason or None for stabilizer in self.stabilizers]

    def columns(self, latent: int) -> dict[str, Any]:
        stability = math.nan if self.stability is None else float(self.stability[latent])
        misses, broken = self.near_misses[latent], self.broken[latent]
        activations = self.estimates[latent]["activations"]
        on = None if activations is None else self.activations_on
        return {
            "stability": None if math.isnan(stability) else round(stability, 2),
            "undecided": self.undecided[latent],
            "near_miss": str(misses[0]) if misses else None,
            "stabilizer_decoder": self.estimates[latent]["decoder"],
            "stabilizer_encoder": self.estimates[latent]["encoder"],
            "stabilizer_activations": activations,
            "activations_on": None if on is None else on.seen,
            "agreement": self.agreement[latent],
            "broken": None if broken is None else str(broken),
        }

    def notes(self, latent: int) -> list[Note]:
        row = self.columns(latent)
        undecided, stability = row["undecided"] or "", row["stability"]
        sentences = [f"Undecided: {undecided}."] if undecided else []
        # If that share is why it is undecided, the sentence above has it.
        if stability is not None and "resamples" not in undecided:
            sentences.append(f"In {percent(stability)} of resamples of the images its stabilizer is the same.")
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
        if self.decoder is not None:
            tensors["evidence_decoder_types"] = self.decoder
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
            tensors.get("evidence_decoder_types"),
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
    C_LG = without_noise(autocorrelation(W_LGD, group), group).float()
    alive = symmetries.live & (C_LG[:, 0] > 0)
    tolerance = calibrate_tolerance(C_LG[alive & ~left_out], group)
    stabilizers, _ = find_broken(W_LGD, group, find_stabilizers(C_LG, group, tolerance, ~alive), left_out=left_out)
    return Estimate(C_LG, _types(stabilizers, group), tolerance)


def _types(stabilizers: list[Stabilizer], group: PlanarGroup) -> torch.Tensor:
    names = subgroup_types(group)
    return torch.tensor([-1 if s.kind == "dead" else names.index(s.name) for s in stabilizers], dtype=torch.int8)
