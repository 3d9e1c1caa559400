"""What a latent does if its shape is turned or mirrored: period, chirality, tuning curve and its width."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch

from groupcc.analysis.evidence.activity import TopExamples
from groupcc.analysis.evidence.turned_examples import measure_responses
from groupcc.analysis.families.families import Families
from groupcc.analysis.families.mirrors import CHIRALITIES, Chirality, Mirrors, find_mirrors, mirrors_in_poses
from groupcc.analysis.families.neighbours import NeighbourGraph
from groupcc.analysis.numbers import two_decimals
from groupcc.analysis.part import Note, Part
from groupcc.analysis.symmetry.interpolation import UPSAMPLING, interpolate, refine
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.data import Orbits
from groupcc.groups import PlanarGroup
from groupcc.groups.planar import format_degrees
from groupcc.models import GroupCrosscoder

__all__ = ["Tuning", "half_width", "measure_tuning", "rotation_period"]

MIN_ROTATIONS = 4
"""With fewer rotations a curve has no width: it is a constant and one cosine, 90° wide whatever the latent is."""


@dataclass(frozen=True, eq=False)
class Tuning(Part):
    """Period, chirality and tuning curves. NaN if there is nothing to say (dead latents); angles in degrees.

    - `period` fp32 [L]: smallest angle that repeats the latent, interpolated; 360 if none smaller does, 0 if every
      angle does (`rotation_period`).
    - `depth` fp32 [L]: 1 − the smallest C over the rotations: 0 untuned, above 1 if some angle opposes.
    - `width` fp32 [L]: half width at half height of the curve C over the rotations (`half_width`); NaN if it is flat.
    - `mirrors`: chirality and partners, [`Mirrors`][groupcc.analysis.Mirrors].
    - `response` fp32 [L, n]: with orbits, the measured curve (`measure_responses`), in units of the latent's act.
      `response_width` [L]: its half width. `response_depth` [L]: 1 − its smallest value over that at no turn. Without
      orbits None.

    A latent's tuning curve is its response to its own shape turned by each of the n rotations, C(r) = ⟨d, R_r d⟩/‖d‖²:
    `Atlas.autocorrelation[:, :n]`. It is flat if C ≥ 1 − tolerance at every rotation. The measured curve is that of the
    encoder on what the latent fires for most. It is flat if its smallest response is at least 1 − tolerance of that at
    no turn.
    """

    period: torch.Tensor
    depth: torch.Tensor
    width: torch.Tensor
    mirrors: Mirrors
    response: torch.Tensor | None = None
    response_depth: torch.Tensor | None = None
    response_width: torch.Tensor | None = None

    @classmethod
    def measure(
        cls,
        crosscoder: GroupCrosscoder,
        symmetries: Symmetries,
        families: Families,
        graph: NeighbourGraph,
        orbits: Orbits | None,
        top_examples: TopExamples | None,
        pose_counts: torch.Tensor | None,
        pose_parts: torch.Tensor | None,
    ) -> Tuning:
        given = families.atoms is not None
        mirrors = mirrors_in_poses(symmetries, pose_counts, pose_parts) if given else None
        response = None
        if orbits is not None and top_examples is not None:
            response = measure_responses(crosscoder, orbits, top_examples)
        return measure_tuning(symmetries, mirrors or find_mirrors(symmetries, families.threshold, graph), response)

    def chirality(self, latent: int) -> Chirality | None:
        """Returns one of `CHIRALITIES`; None for a dead latent and under C_n, which has no mirrors."""
        code = int(self.mirrors.codes[latent])
        return None if code < 0 else CHIRALITIES[code]

    def flat(self, latent: int) -> bool | None:
        """Whether no angle changes the latent, within the tolerance; None for a dead latent and under one rotation."""
        period = float(self.period[latent])
        return None if math.isnan(period) or math.isnan(float(self.depth[latent])) else period == 0.0

    def columns(self, latent: int) -> dict[str, Any]:
        mirrors, partner = self.mirrors, int(self.mirrors.partner[latent])
        flat = self.flat(latent)
        columns: dict[str, Any] = {
            "period_degrees": _value(self.period[latent], 2),
            "tuning": None if flat is None else ("flat" if flat else "tuned"),
            "tuning_depth": _value(self.depth[latent], 5),
            "tuning_width_degrees": _value(self.width[latent], 2),
            "chirality": self.chirality(latent),
            "mirror_score": _value(mirrors.own[latent], 5),
            "mirror_partner": None if partner < 0 else partner,
            "mirror_similarity": None if partner < 0 else _value(mirrors.similarity[latent], 5),
            "mirror_turn_degrees": None if partner < 0 else _value(mirrors.turn[latent], 2),
            "mirrored_share": _value(mirrors.mirrored_share[latent], 5),
        }
        if self.response_depth is not None and self.response_width is not None:
            columns["response_depth"] = _value(self.response_depth[latent], 5)
            columns["response_width_degrees"] = _value(self.response_width[latent], 2)
        return columns

    def notes(self, latent: int) -> list[Note]:
        row = self.columns(latent)
        notes = []
        partner, chirality = row["mirror_partner"], row["chirality"]
        if chirality == "no partner":
            notes.append(Note("shape", "Chiral: its mirror image is not in the dictionary."))
        elif chirality == "unclear":
            notes.append(Note("shape", "Chiral; whether its mirror image occurs too is unclear."))
        elif chirality == "partner" and partner in (None, latent):
            notes.append(Note("shape", "Chiral: it fires on its mirror image too."))
        elif chirality == "partner":
            match = two_decimals(row["mirror_similarity"])
            notes.append(Note("shape", f"Chiral: {{}} is its mirror image (match {match}).", partner))
        width, measured = row["tuning_width_degrees"], row.get("response_width_degrees")
        if row["tuning"] == "tuned" and width is not None:
            text = f"Half as alike after a turn of {format_degrees(round(width, 1))}"
            if measured is not None:
                turn = format_degrees(round(measured, 1))
                text += f"; on its strongest examples it fires half as strongly after {turn}"
            notes.append(Note("shape", f"{text}."))
        return notes

    def tensors(self) -> dict[str, torch.Tensor]:
        named = {f"tuning_{name}": getattr(self, name) for name in _TENSORS}
        named |= {f"mirror_{field.name}": getattr(self.mirrors, field.name) for field in fields(Mirrors)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Tuning | None:
        if "tuning_period" not in tensors:
            return None
        mirrors = Mirrors(**{field.name: tensors[f"mirror_{field.name}"] for field in fields(Mirrors)})
        return cls(mirrors=mirrors, **{name: tensors.get(f"tuning_{name}") for name in _TENSORS})  # type: ignore[arg-type]


_TENSORS = ("period", "depth", "width", "response", "response_depth", "response_width")


def _value(number: torch.Tensor, digits: int) -> float | None:
    return None if bool(number.isnan()) else round(float(number), digits)


def measure_tuning(symmetries: Symmetries, mirrors: Mirrors, response_Ln: torch.Tensor | None = None) -> Tuning:
    """Returns period, tuning curves and chirality of every latent.

    `response_Ln`: the measured curves of `measure_responses`, if there are orbits. Deterministic on the CPU.
    """
    C_LG, tolerance, live = symmetries.autocorrelation, symmetries.tolerance, symmetries.live
    curves = C_LG[:, : symmetries.group.n].double()
    depth, width = _describe(curves, tolerance, live)
    response_depth = response_width = None
    if response_Ln is not None:
        top = response_Ln[:, :1]
        fires = live & (top[:, 0] > 0)
        response_depth, response_width = _describe((response_Ln / top).double(), tolerance, fires)
    period = rotation_period(C_LG, symmetries.group, symmetries.stabilizers, tolerance)
    return Tuning(period, depth, width, mirrors, response_Ln, response_depth, response_width)


def _describe(curves: torch.Tensor, tolerance: float, known: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns depth and half width of curves [L, n] with 1 at no turn; NaN for latents not `known`. The width of a flat
    curve is NaN."""
    nan = torch.full((len(curves),), torch.nan)
    if curves.shape[1] < 2:
        return nan, nan.clone()
    lowest = curves.amin(1)
    tuned = known & (lowest < 1.0 - tolerance)
    return torch.where(known, 1.0 - lowest, nan).float(), torch.where(tuned, half_width(curves), nan).float()


def half_width(curves: torch.Tensor) -> torch.Tensor:
    """Returns the half width at half height of the peak at no turn, in degrees: curves [L, n] over n rotations →
    fp64 [L].

    Half height lies midway between the value at no turn and the curve's smallest value (C is not centred, so half of
    C(0) may never be reached). The curve is interpolated (`interpolate`) and followed from no turn to either side until
    it first falls to that height; the width is half the angle between. With n rotations no peak is narrower than about
    0.6 steps of 360°/n. NaN below `MIN_ROTATIONS` rotations, and for a constant curve.
    """
    L, n = curves.shape
    if n < MIN_ROTATIONS or L == 0:
        return torch.full((L,), torch.nan, dtype=torch.float64)
    fine = interpolate(curves.double(), UPSAMPLING)
    level = 0.5 * (fine[:, :1] + fine.amin(1, keepdim=True))
    falls = [_first_below(side, level) for side in (fine, fine.flip(1).roll(1, 1))]
    width = 0.5 * (falls[0] + falls[1]) * 360.0 / fine.shape[1]
    return torch.where(fine[:, 0] > level[:, 0], width, torch.nan)


def _first_below(fine: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """Returns where each row first falls to its level, in points, by a line between two of them."""
    after = (fine <= level).to(torch.uint8).argmax(1, keepdim=True).clamp_min(1)
    high, low = fine.gather(1, after - 1), fine.gather(1, after)
    drop = torch.where(high > low, high - low, 1.0)
    return (after - 1 + (high - level) / drop)[:, 0]


def rotation_period(
    C_LG: torch.Tensor, group: PlanarGroup, stabilizers: list[Stabilizer], tolerance: float
) -> torch.Tensor:
    """Returns the smallest angle that repeats each latent, in degrees, fp32 [L]: 360 if none does, 0 if every one does.

    A shape repeats m times a turn or not at all, so m = 2 … n/2 are tried, divisors of n or not: a five-fold shape
    under D_16 has a period of 72°, between elements, and no rotation in its stabilizer. m counts if the interpolated C
    is at least 1 − `tolerance` at every multiple of 360°/m, and is higher at 360°/m than at 0.75 and 1.25 times that
    angle. So it is a repeat, and not the shoulder of a wide peak. The stabilizer's own m always counts. The largest m
    gives the angle, which is then moved to the peak of C near it. 0 if C ≥ 1 − `tolerance` at every rotation; 360 if
    there is a single rotation; NaN for a dead latent.
    """
    n = group.n
    curves = interpolate(C_LG[:, :n].double().cpu(), UPSAMPLING)
    M = curves.shape[1]
    folds = torch.tensor([s.mask[:n].sum() for s in stabilizers], dtype=torch.int64)
    every = (C_LG[:, :n].double().cpu() >= 1.0 - tolerance).all(1) & (n > 1)
    for m in range(2, n // 2 + 1):
        multiples = _at(curves, torch.arange(1, m) * M / m)
        beside = _at(curves, torch.tensor([0.75, 1.25]) * M / m)
        accepted = (multiples >= 1.0 - tolerance).all(1) & (multiples[:, :1] > beside).all(1)
        folds = torch.where(accepted, folds.clamp_min(m), folds)
    period = torch.full((len(curves),), 360.0)
    for m in folds.unique().tolist():
        chosen = ((folds == m) & ~every).nonzero()[:, 0]
        if m > 1 and len(chosen):
            reach = M // (4 * m)
            window = round(M / m) + torch.arange(-reach, reach + 1)
            near = curves[chosen][:, window % M]
            peak = window[(near >= near.amax(1, keepdim=True)).to(torch.uint8).argmax(1)]
            period[chosen] = (refine(curves[chosen], peak) * 360.0 / M).float()
    period[every] = 0.0
    return torch.where(torch.tensor([s.kind == "dead" for s in stabilizers], dtype=torch.bool), torch.nan, period)


def _at(curves: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Returns periodic rows [L, M] at positions in points, by lines between them: [L, positions]."""
    M = curves.shape[1]
    low = positions.floor().long()
    part = (positions - low).to(curves)
    return torch.lerp(curves[:, low % M], curves[:, (low + 1) % M], part)
