"""The label of each latent: what its data say, with the decoder as second opinion, or undecided and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from groupcc.analysis.evidence.nulls import Null
from groupcc.analysis.evidence.resampling import DataSums
from groupcc.analysis.symmetry.modulated import without_noise
from groupcc.analysis.symmetry.near_misses import limits, near_misses
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers, subgroup_types, type_scores
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.analysis.symmetry.tolerance import TOLERANCE_BOUNDS, calibrate_tolerance, tolerance_bounds
from groupcc.analysis.symmetry.too_few import mirror_hidden
from groupcc.groups import PlanarGroup

__all__ = ["STABLE", "Labels", "read_labels"]

STABLE = 0.9
"""A label is undecided if fewer than this share of the resamples give it."""

ATTENUATION = 0.5
"""Least factor by which a decoder's C may be smaller than that of the data. It is about the squared cosine of the
two."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What `read_labels` returns.

    - `stabilizers`: the label of each latent; kind "undecided" and `Stabilizer.reason` if none is stated.
    - `decoder` int8 [L]: the type that the decoder by itself says, an index into `subgroup_types`; −1 if dead.
    - With orbits, else None: `data` [L, G], C of the templates that the data ask for; `shares` [L, types], in which
      share of the resamples the template has each type, NaN if the data say nothing of the latent; `counts` int64
      [resamples, types], how many latents have each type in each resample.
    - `tolerance`: that of the stated labels; `bounds`: between which it is drawn in each resample.
    """

    stabilizers: list[Stabilizer]
    decoder: torch.Tensor
    tolerance: float
    bounds: tuple[float, float]
    data: torch.Tensor | None = None
    shares: torch.Tensor | None = None
    counts: torch.Tensor | None = None


def read_labels(symmetries: Symmetries, sums: DataSums | None, null: Null, given: float | None) -> Labels:
    """Returns the labels of the latents whose decoders say `symmetries`.

    `sums`: what the orbits say (`measure_data`); None: the decoder is all there is. `given`: the user's tolerance,
    which then is not drawn.

    With orbits a label is the type of the template's C (`DataSums.autocorrelation`), and it is stated if

    1. the data say something of the latent;
    2. at least `STABLE` of the resamples of images and tolerance give this type;
    3. the group has enough rotations (`mirror_hidden`);
    4. the decoder says the same. Its C is compared after division by the factor by which its error lowers it: the
       regression of the decoder's C on that of the data over h ≠ e, which is at least `ATTENUATION`.

    Without orbits it is the decoder's type, and it is stated if the group has enough rotations and all tolerances
    between the bounds give this type.

    In both cases it must also score more than latents of unrelated blocks (`Null.chance`), and not hang on an element
    that interpolates if C there is as near the limit 1 − tolerance as interpolation moves it (`Null.error`). A latent
    with a broken symmetry keeps what `find_broken` says of it. In the
    template's C its missing blocks are left out.
    """
    group = symmetries.group
    C_LG = without_noise(symmetries.autocorrelation, group)
    own = _indices(symmetries.stabilizers, group)
    if group.order == 1:  # nothing can be said of symmetry, and nothing is
        data, shares = (None, None) if sums is None else (sums.autocorrelation().float(), sums.shares((0.0, 0.0))[0])
        return Labels(symmetries.stabilizers, own, symmetries.tolerance, TOLERANCE_BOUNDS, data, shares)
    if sums is None:
        bounds = _bounds(C_LG[~symmetries.left_out], group, given)
        reasons = _decoder_doubts(C_LG, symmetries, bounds)
        reasons = _with_null(reasons, symmetries.stabilizers, C_LG, null, symmetries)
        return Labels(_labelled(symmetries.stabilizers, reasons), own, symmetries.tolerance, bounds)
    data_LG, seen = sums.autocorrelation(), sums.seen
    asked = seen & ~symmetries.left_out
    bounds = _bounds(data_LG[asked], group, given)
    tolerance = calibrate_tolerance(data_LG[asked], group) if given is None else given
    shares, counts = sums.shares(bounds)
    by_data = find_stabilizers(data_LG, group, tolerance, symmetries.dead)
    chosen = [
        theirs if known and not ours.broken and ours.kind != "dead" else ours
        for ours, theirs, known in zip(symmetries.stabilizers, by_data, seen.tolist(), strict=True)
    ]
    reasons = _data_doubts(chosen, symmetries, data_LG, shares, tolerance)
    reasons = _with_null(reasons, chosen, data_LG, null, replace(symmetries, tolerance=tolerance))
    return Labels(_labelled(chosen, reasons), own, tolerance, bounds, data_LG.float(), shares, counts)


def _bounds(C_LG: torch.Tensor, group: PlanarGroup, given: float | None) -> tuple[float, float]:
    return tolerance_bounds(C_LG, group) if given is None else (given, given)


def _indices(stabilizers: list[Stabilizer], group: PlanarGroup) -> torch.Tensor:
    """Returns the types as indices, −1 for a dead latent: int8 [L]."""
    names = subgroup_types(group)
    return torch.tensor([-1 if s.kind == "dead" else names.index(s.name) for s in stabilizers], dtype=torch.int8)


def _labelled(stabilizers: list[Stabilizer], reasons: list[str]) -> list[Stabilizer]:
    return [
        replace(stabilizer, kind="undecided", reason=reason) if reason else stabilizer
        for stabilizer, reason in zip(stabilizers, reasons, strict=True)
    ]


def _hidden(stabilizer: Stabilizer) -> str:
    m = stabilizer.name[1:]
    return f"too few rotations to tell C{m} from D{m}"


def _decoder_doubts(C_LG: torch.Tensor, symmetries: Symmetries, bounds: tuple[float, float]) -> list[str]:
    """Returns why labels that only the decoder gives are not stated; "" for those that are."""
    group, names = symmetries.group, subgroup_types(symmetries.group)
    types = type_scores(C_LG, group)
    ends = [types.best(tolerance) for tolerance in bounds]
    middle = types.best(symmetries.tolerance)
    hidden = mirror_hidden(C_LG, types, middle, group, symmetries.tolerance).tolist()
    reasons = []
    for latent, stabilizer in enumerate(symmetries.stabilizers):
        others = sorted({names[end[latent]] for end in ends} - {stabilizer.name})
        if stabilizer.kind == "dead" or stabilizer.broken:
            reasons.append("")
        elif hidden[latent]:
            reasons.append(_hidden(stabilizer))
        else:
            text = f"{' or '.join([stabilizer.name, *others])}, by the tolerance ({bounds[0]:.2f} to {bounds[1]:.2f})"
            reasons.append(text if others else "")
    return reasons


def _data_doubts(
    chosen: list[Stabilizer], symmetries: Symmetries, data_LG: torch.Tensor, shares: torch.Tensor, tolerance: float
) -> list[str]:
    """Returns why labels that the data give are not stated; "" for those that are."""
    group, names = symmetries.group, subgroup_types(symmetries.group)
    types = type_scores(data_LG, group)
    hidden = mirror_hidden(data_LG, types, types.best(tolerance), group, tolerance).tolist()
    second = _second_opinion(symmetries.autocorrelation.double(), data_LG, group, tolerance)
    reasons = []
    for latent, stabilizer in enumerate(chosen):
        stable = float(shares[latent, names.index(stabilizer.name)]) if stabilizer.kind != "dead" else 1.0
        if stabilizer.kind == "dead":
            reasons.append("")
        elif stable != stable:
            reasons.append("too little data")
        elif hidden[latent] and not stabilizer.broken:
            reasons.append(_hidden(stabilizer))
        elif stable < STABLE:
            reasons.append(f"{stabilizer.name} in {100 * stable:.0f} % of resamples")
        elif stabilizer.broken:
            reasons.append("")
        elif second[latent] is None:
            reasons.append("the decoder is unlike what the data ask for")
        else:
            differs = second[latent] != stabilizer.name
            reasons.append(f"data {stabilizer.name}, decoder {second[latent]}" if differs else "")
    return reasons


def _with_null(
    reasons: list[str], stabilizers: list[Stabilizer], C_LG: torch.Tensor, null: Null, symmetries: Symmetries
) -> list[str]:
    """Returns the reasons, with those that come from chance and interpolation where there were none."""
    group, limit = symmetries.group, 1.0 - symmetries.tolerance
    types = type_scores(C_LG, group)
    misses = near_misses(C_LG, group, stabilizers, symmetries.tolerance)
    more = []
    for latent, (stabilizer, reason) in enumerate(zip(stabilizers, reasons, strict=True)):
        if not reason and stabilizer.kind != "dead" and not stabilizer.broken:
            chance = float(null.chance[subgroup_types(group).index(stabilizer.name)])
            if stabilizer.order > 1 and stabilizer.score < chance - 1e-6:
                reason = f"unrelated blocks reach {chance:.2f}"
            own = limits(C_LG[latent], group, types, latent, stabilizer.name)
            for at in (own, *(miss.limit for miss in misses[latent])):
                if not reason and not at.exact and abs(at.value - limit) < null.error:
                    reason = f"{at.element} {at.value:.2f}, interpolation moves it by {null.error:.2f}"
        more.append(reason)
    return more


def _second_opinion(
    C_LG: torch.Tensor, data_LG: torch.Tensor, group: PlanarGroup, tolerance: float
) -> list[str | None]:
    """Returns the type that the decoder says, its error taken into account; None if it is too unlike the data.

    Example: data 1, 0.9, −0.5 and decoder 1, 0.72, −0.4 over h: the factor is 0.8, and the decoder's C then is 1, 0.9,
    −0.5.
    """
    if group.order == 1:
        return ["C1"] * len(C_LG)
    others = torch.arange(group.order) != group.identity
    x, y = data_LG[:, others], C_LG[:, others]
    factor = (x * y).sum(1) / x.square().sum(1).clamp_min(1e-12)
    raised = (C_LG / factor.clamp_min(ATTENUATION).clamp_max(1.0)[:, None]).clamp(-1.0, 1.0)
    raised[:, group.identity] = C_LG[:, group.identity]
    best = type_scores(raised, group).best(tolerance)
    flat = x.abs().amax(1) < ATTENUATION  # C is near 0 for all h ≠ e: there is nothing to compare
    names = subgroup_types(group)
    like = ((factor >= ATTENUATION) | flat).tolist()
    return [names[index] if alike else None for index, alike in zip(best.tolist(), like, strict=True)]
