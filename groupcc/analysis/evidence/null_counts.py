"""Counts of kinds and families beside their nulls: raw orbits, and a network with random weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from groupcc.analysis.evidence.labels import Labels
from groupcc.analysis.families.families import Families
from groupcc.analysis.part import Part
from groupcc.analysis.symmetry.stabilizers import KINDS, find_stabilizers, kind_of_type, subgroup_types
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.data import Orbits
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import autocorrelation

__all__ = ["FAMILIES", "QUANTITIES", "VARIANCE", "NullCounts", "Share", "interval_of", "raw_orbits"]

FAMILIES, VARIANCE = "families", "invariant variance"
QUANTITIES = (*KINDS[:-1], FAMILIES, VARIANCE)
"""What is counted: live latents of each kind, live latents in a family of two or more, and the share of the layer's
variance that is alike under every transform."""

MOST_ORBITS = 2048
"""Raw orbits that are looked at, spread evenly."""

REPLICATES = 200
"""Resamples of the photographs."""

Z = 1.96
"""An interval reaches so many standard errors to either side: 95 %."""


@dataclass(frozen=True)
class Share:
    """A share, and its 95 % interval."""

    value: float
    low: float
    high: float

    def exceeds(self, other: Share) -> bool:
        """Whether the 95 % interval of the difference lies above 0 (Newcombe 1998, method 10).

        Its lower end is p − q − √((p − low)² + (high' − q)²). Example: 6 % (3 to 11) against 0 % (0 to 3) is above by
        0.06 − √(0.03² + 0.03²) = 0.018.
        """
        return self.value - other.value > math.hypot(self.value - self.low, other.high - other.value)


@dataclass(frozen=True, eq=False)
class NullCounts(Part):
    """Each of `QUANTITIES` for the dictionary, and for its nulls, made by [`analyze`][groupcc.analyze].

    - `own`: the dictionary's shares of its live latents, by quantity.
    - `raw`: the same of single orbits of the layer, less their mean, without a dictionary. Families are unknown.
    - `random`: `own` of the same pipeline on the network with random weights; None if it was not given. `random_raw`:
      the raw orbits of that network.

    Intervals: the wider of Wilson's, for counts of latents, and Z standard errors over resamples of the photographs, so
    that neither few latents nor few photographs pass for many. Of `VARIANCE`, and of raw orbits, resamples of the
    photographs.
    """

    own: Mapping[str, Share]
    raw: Mapping[str, Share]
    random: Mapping[str, Share] | None = None
    random_raw: Mapping[str, Share] | None = None

    @classmethod
    def measure(
        cls, symmetries: Symmetries, labels: Labels, searched: Families, orbits: Orbits | None, options: Any
    ) -> NullCounts | None:
        """Returns the counts. `options.nulls`: the atlas of the network with random weights, or None."""
        if orbits is None or symmetries.group.order == 1:
            return None
        raw = raw_orbits(orbits, symmetries.group, labels.tolerance)
        own = _of_latents(symmetries, labels, searched) | {VARIANCE: raw[VARIANCE]}
        null = None if options.nulls is None else options.nulls.part(cls)
        return cls(own, raw, null and null.own, null and null.raw)

    @property
    def claims(self) -> list[str] | None:
        """Returns the quantities of which the dictionary has more than the network with random weights has; None if
        that network was not looked at. Undecided latents are no finding."""
        if self.random is None:
            return None
        return [
            name
            for name in QUANTITIES
            if name not in ("undecided", "none") and self.own[name].exceeds(self.random[name])
        ]

    def tensors(self) -> dict[str, torch.Tensor]:
        rows = {"own": self.own, "raw": self.raw, "random": self.random, "random_raw": self.random_raw}
        nan = Share(math.nan, math.nan, math.nan)
        return {
            f"nulls_{name}": torch.tensor(
                [[s.value, s.low, s.high] for s in (shares.get(q, nan) for q in QUANTITIES)], dtype=torch.float64
            )
            for name, shares in rows.items()
            if shares is not None
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> NullCounts | None:
        if "nulls_own" not in tensors:
            return None

        def shares(name: str) -> dict[str, Share] | None:
            rows = tensors.get(f"nulls_{name}")
            if rows is None:
                return None
            named = zip(QUANTITIES, rows.tolist(), strict=True)
            return {quantity: Share(*row) for quantity, row in named if not math.isnan(row[0])}

        return cls(shares("own") or {}, shares("raw") or {}, shares("random"), shares("random_raw"))


def interval_of(count: int, of: int, error: float = 0.0) -> Share:
    """Returns count / of with Wilson's 95 % interval, widened to `Z` times a standard error of the share.

    Example: 0 of 100 is 0 to 0.037.
    """
    if of == 0:
        return Share(0.0, 0.0, 1.0)
    share, z2 = count / of, Z**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    low, high = min(middle - half, share - Z * error), max(middle + half, share + Z * error)
    return Share(share, max(0.0, low), min(1.0, high))


def _of_latents(symmetries: Symmetries, labels: Labels, searched: Families) -> dict[str, Share]:
    live = [stabilizer for stabilizer in symmetries.stabilizers if stabilizer.kind != "dead"]
    counted = Counter(stabilizer.kind for stabilizer in live)
    errors = _errors(symmetries.group, labels, len(live))
    shares = {kind: interval_of(counted[kind], len(live), errors.get(kind, 0.0)) for kind in KINDS if kind != "dead"}
    members = sum(size for size in searched.sizes if size > 1)
    return shares | {FAMILIES: interval_of(members, len(live))}


def _errors(group: PlanarGroup, labels: Labels, live: int) -> dict[str, float]:
    """Returns the standard deviation of each kind's share over the resamples; none without orbits."""
    if labels.counts is None or live == 0:
        return {}
    by_kind: dict[str, torch.Tensor] = {}
    for name, column in zip(subgroup_types(group), labels.counts.double().unbind(1), strict=True):
        kind = kind_of_type(group, name)
        by_kind[kind] = by_kind.get(kind, torch.zeros_like(column)) + column
    return {kind: float(count.std()) / live for kind, count in by_kind.items()}


def raw_orbits(orbits: Orbits, group: PlanarGroup, tolerance: float) -> dict[str, Share]:
    """Returns the kinds of single orbits less their mean, and the share of their variance that is invariant.

    The variance of orbits x about their mean over examples is Σ‖x‖², of which G·Σ‖mean_g x_g‖² is alike under every
    transform. Deterministic.
    """
    chosen = torch.linspace(0, len(orbits) - 1, min(len(orbits), MOST_ORBITS), dtype=torch.float64).long()
    acts = orbits.take(chosen).float().cpu()
    acts = acts - acts.mean(0)
    _, photograph = orbits.photograph_ids.cpu()[chosen].unique(return_inverse=True)
    kinds = [stabilizer.kind for stabilizer in find_stabilizers(autocorrelation(acts, group), group, tolerance)]
    power = acts.double().square().sum((1, 2))
    invariant = group.order * acts.double().mean(1).square().sum(1)
    draws = _draws(int(photograph.max()) + 1)[:, photograph]  # how often each example counts in each resample
    shares = {}
    for kind in KINDS:
        if kind not in ("dead", "undecided"):
            member = torch.tensor([float(own == kind) for own in kinds], dtype=torch.float64)
            shares[kind] = _ratio(member, torch.ones_like(member), draws)
    return shares | {VARIANCE: _ratio(invariant, power, draws)}


def _draws(photographs: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(photographs, (REPLICATES, photographs), generator=generator)
    return torch.stack([row.bincount(minlength=photographs) for row in drawn]).double()


def _ratio(above: torch.Tensor, below: torch.Tensor, draws: torch.Tensor) -> Share:
    """Returns Σ above / Σ below, with the 95 % interval over resamples."""
    total = float(below.sum())
    if total == 0:
        return Share(0.0, 0.0, 0.0)
    value = float(above.sum()) / total
    resampled = (draws @ above) / (draws @ below).clamp_min(1e-300)
    low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Share(value, min(low, value), max(high, value))
