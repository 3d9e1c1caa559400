"""What a latent does when its shape is turned or mirrored: period, chirality, tuning curve and its width."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from groupcc.analysis.evidence.activity import TopExamples
from groupcc.analysis.evidence.turned_examples import measure_responses
from groupcc.analysis.families.mirrors import CHIRALITIES, Chirality, Mirrors, find_mirrors
from groupcc.analysis.families.neighbours import NeighbourGraph
from groupcc.analysis.symmetry.interpolation import UPSAMPLING, interpolate, refine
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import Group

if TYPE_CHECKING:
    from groupcc.data import Orbits
    from groupcc.models import GroupCrosscoder

__all__ = ["Tuning", "half_width", "measure_tuning", "rotation_period"]

MIN_ROTATIONS = 4
"""Fewer rotations than this have no width: the curve through them is a constant and one cosine, 90° wide whatever the
latent is."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """What `measure_tuning` returns. NaN where there is nothing to say (dead latents); angles in degrees.

    - `period` fp32 [L]: smallest angle that repeats the latent, interpolated; 360 where none smaller does, 0 where
      every angle does.
    - `depth` fp32 [L]: 1 − the smallest C over the rotations: 0 untuned, above 1 where some angle opposes.
    - `width` fp32 [L]: half width at half height of the curve C over the rotations; NaN also for a flat one.
    - `mirrors`: chirality and partners, [`Mirrors`][groupcc.analysis.Mirrors].
    - `response` fp32 [L, n]: with orbits, the measured curve (`measure_responses`), in units of the latent's act.
      `response_width` [L]: its half width. `response_depth` [L]: 1 − its smallest value over that at no turn.
      Without orbits None.

    The curve that `width` and `depth` describe is `Atlas.autocorrelation[:, :n]`, n the number of rotations.
    """

    period: torch.Tensor
    depth: torch.Tensor
    width: torch.Tensor
    mirrors: Mirrors
    response: torch.Tensor | None = None
    response_depth: torch.Tensor | None = None
    response_width: torch.Tensor | None = None

    def chirality(self, latent: int) -> Chirality | None:
        """One of `CHIRALITIES`; None for a dead latent and under C_n, which has no mirrors."""
        code = int(self.mirrors.codes[latent])
        return None if code < 0 else CHIRALITIES[code]

    def flat(self, latent: int) -> bool | None:
        """Whether no angle changes the latent, within the tolerance; None for a dead latent and under one rotation."""
        period = float(self.period[latent])
        return None if math.isnan(period) or math.isnan(float(self.depth[latent])) else period == 0.0

    def columns(self, latent: int) -> dict[str, Any]:
        """What `Atlas.table` says of a latent."""
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

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its fields by the names that an atlas saves them under."""
        named = {f"tuning_{name}": getattr(self, name) for name in _TENSORS}
        named |= {f"mirror_{field.name}": getattr(self.mirrors, field.name) for field in fields(Mirrors)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Tuning | None:
        """From what `tensors` returned, among others; None where it is not there."""
        if "tuning_period" not in tensors:
            return None
        mirrors = Mirrors(**{field.name: tensors[f"mirror_{field.name}"] for field in fields(Mirrors)})
        return cls(mirrors=mirrors, **{name: tensors.get(f"tuning_{name}") for name in _TENSORS})  # type: ignore[arg-type]


_TENSORS = ("period", "depth", "width", "response", "response_depth", "response_width")


def _value(number: torch.Tensor, digits: int) -> float | None:
    return None if bool(number.isnan()) else round(float(number), digits)


@torch.no_grad()
def measure_tuning(
    crosscoder: GroupCrosscoder,
    W_dec_LGD: torch.Tensor,
    C_LG: torch.Tensor,
    stabilizers: list[Stabilizer],
    dead: torch.Tensor,
    *,
    tolerance: float,
    threshold: float,
    pose_counts: torch.Tensor | None = None,
    orbits: Orbits | None = None,
    examples: TopExamples | None = None,
    graph: NeighbourGraph | None = None,
) -> Tuning:
    """Period, tuning curve and chirality of every latent.

    The tuning curve of a latent is its response to its own shape turned by each rotation, C(r) = ⟨d, R_r d⟩/‖d‖²; with
    `orbits` and `examples` (`measure_activity`'s) also the one that its encoder has on what it fires for most. A curve
    is flat, with no width, where C ≥ 1 − `tolerance` at every rotation; of the measured one, where the smallest
    response is at least 1 − `tolerance` of that at no turn. See `rotation_period`, `half_width`, `find_mirrors` (with
    `threshold` and `graph`) and `measure_responses`. Deterministic on the CPU.
    """
    group = crosscoder.group
    live = ~dead.cpu()
    curves = C_LG[:, : group.n].double().cpu()
    depth, width = _describe(curves, tolerance, live)
    response = response_depth = response_width = None
    if orbits is not None and examples is not None:
        response = measure_responses(crosscoder, orbits, examples)
        top = response[:, :1]
        fires = live & (top[:, 0] > 0)
        response_depth, response_width = _describe((response / top).double(), tolerance, fires)
    return Tuning(
        period=rotation_period(C_LG, group, stabilizers, tolerance),
        depth=depth,
        width=width,
        mirrors=find_mirrors(
            W_dec_LGD,
            C_LG,
            group,
            stabilizers,
            dead,
            tolerance=tolerance,
            threshold=threshold,
            tied=bool(crosscoder.config.tied),
            pose_counts=pose_counts,
            graph=graph,
        ),
        response=response,
        response_depth=response_depth,
        response_width=response_width,
    )


def _describe(curves: torch.Tensor, tolerance: float, told: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth and half width of curves [L, n] with 1 at no turn; NaN where not `told`, and the width of flat ones."""
    nan = torch.full((len(curves),), torch.nan)
    if curves.shape[1] < 2:
        return nan, nan.clone()
    lowest = curves.amin(1)
    tuned = told & (lowest < 1.0 - tolerance)
    return torch.where(told, 1.0 - lowest, nan).float(), torch.where(tuned, half_width(curves), nan).float()


def half_width(curves: torch.Tensor) -> torch.Tensor:
    """Half width at half height of the peak at no turn, in degrees: curves [L, n] over n rotations → fp64 [L].

    Half height lies midway between the value at no turn and the curve's smallest (C is not centred, so half of C(0)
    may never be reached). The curve is interpolated (`interpolate`) and followed from no turn to either side until it
    first falls to that height; the width is half the angle between. With n rotations no peak is narrower than about 0.6
    steps of 360°/n. NaN below `MIN_ROTATIONS` rotations, and for a constant curve.
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
    """Where each row first falls to its level, in points, by a line between two of them."""
    after = (fine <= level).to(torch.uint8).argmax(1, keepdim=True).clamp_min(1)
    high, low = fine.gather(1, after - 1), fine.gather(1, after)
    drop = torch.where(high > low, high - low, 1.0)
    return (after - 1 + (high - level) / drop)[:, 0]


def rotation_period(C_LG: torch.Tensor, group: Group, stabilizers: list[Stabilizer], tolerance: float) -> torch.Tensor:
    """Smallest angle that repeats each latent, in degrees, fp32 [L]: 360 where none does, 0 where every one does.

    A shape repeats m times a turn or not at all, so m = 2 … n/2 are tried, divisors of n or not: a five-fold shape
    under D_16 has a period of 72°, between elements, and no rotation in its stabilizer. m counts where the interpolated
    C is at least 1 − `tolerance` at every multiple of 360°/m, and higher at 360°/m than a quarter of that to either
    side: a repeat, not the shoulder of a wide peak. The stabilizer's own m always counts. Of those the largest; the
    angle is then moved to the peak of C near it. 0 where C ≥ 1 − `tolerance` at every rotation; 360 under a single one;
    NaN for a dead latent.
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
    """Periodic rows [L, M] at positions in points, by lines between them: [L, positions]."""
    M = curves.shape[1]
    low = positions.floor().long()
    part = (positions - low).to(curves)
    return torch.lerp(curves[:, low % M], curves[:, (low + 1) % M], part)
