"""What the page says of a pose-tied dictionary: the dial of each base latent, in a drawing and in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from groupcc.analysis import GAP_ERROR, GAP_RATE, Dial, DialRing
from groupcc.groups import Group
from groupcc.groups.algebra import format_degrees
from groupcc.analysis.numbers import array, count_noun, percent
from groupcc.report.svg import pose_dial, pose_dial_figure

__all__ = [
    "DialView",
    "dial_kinds",
    "dial_sentence",
    "dial_view",
    "dials_words",
    "gap_rule",
    "residual_words",
    "tied_sentences",
]

NAMED_GAPS = 3
"""Gaps of one ring that a sentence names."""


RING_NAMES = ("Turned by", "Mirrored, then turned by")


@dataclass(frozen=True)
class DialView:
    """A base latent's dial: a small figure, a large one that uses the small one's shapes, and the same in words.

    `counts`: for each ring its name and the firings pose by pose.
    """

    small: Markup
    large: Markup
    sentence: str
    counts: list[tuple[str, str]]
    has_gaps: bool


def dial_view(latent: int, dial: Dial, group: Group) -> DialView | None:
    """The view of one dial; None for a single pose, of which there is nothing to draw."""
    if dial.kind == "one":
        return None
    sentence = dial_sentence(dial)
    cells = Markup('<g id="dial-{}">{}</g>').format(latent, pose_dial(dial, group))
    label = f"Poses in which latent {latent} fired. {sentence}"
    return DialView(
        small=pose_dial_figure(cells, f"Dial of latent {latent}: {sentence}"),
        large=pose_dial_figure(Markup('<use href="#dial-{}"/>').format(latent), label, large=True),
        sentence=sentence,
        counts=[(name, _counts(ring)) for name, ring in zip(RING_NAMES, dial.rings, strict=False)],
        has_gaps=dial.kind == "gaps",
    )


def _counts(ring: DialRing) -> str:
    return ", ".join(f"{format_degrees(i * ring.step)}: {count:,}" for i, count in enumerate(ring.counts.tolist()))


def dial_sentence(dial: Dial) -> str:
    """`Fired 412 times, hardly ever in 3 of its 16 poses: from +45° to +90° (a gap of 67.5°).`"""
    times = f"Fired {count_noun(dial.firings, 'time')}"
    if dial.kind == "one":
        return f"{times}. It has one pose, as it looks alike in every orientation."
    if dial.kind == "few":
        return f"{times}, too seldom to tell its {dial.n_poses} poses apart."
    if dial.kind in ("even", "uneven"):
        assert dial.visible_gap is not None
        visible = f"An empty gap of {format_degrees(dial.visible_gap)} or more would have shown."
        if dial.kind == "even":
            return f"{times}, evenly over its {dial.n_poses} poses. {visible}"
        (most, where), (least, elsewhere) = _extremes(dial)
        return (
            f"{times}, over its {dial.n_poses} poses without a gap, most often {where} ({percent(most)} of its "
            f"firings), least {elsewhere} ({percent(least)}). {visible}"
        )
    missed = sum(int(ring.gaps.sum()) for ring in dial.rings)
    parts = [part for mirrored, ring in enumerate(dial.rings) if (part := _gaps(ring, bool(mirrored)))]
    return f"{times}, hardly ever in {missed} of its {dial.n_poses} poses: {'; '.join(parts)}."


def _gaps(ring: DialRing, mirrored: bool) -> str:
    if ring.gaps.all():
        return "all that are mirrored" if mirrored else "all that are not mirrored"
    runs = sorted(ring.runs, key=lambda run: (-run[1], run[0]))
    named = [_stretch(ring, first, length) for first, length in runs[:NAMED_GAPS]]
    if len(runs) > NAMED_GAPS:
        named.append(count_noun(len(runs) - NAMED_GAPS, "smaller gap"))
    text = ", ".join(named)
    return f"mirrored and {text}" if text and mirrored else text


def _stretch(ring: DialRing, first: int, length: int) -> str:
    start, end = (_turn(ring, i % len(ring.counts)) for i in (first, first + length - 1))
    return f"at {start}" if length == 1 else f"from {start} to {end} (a gap of {format_degrees(length * ring.step)})"


def _turn(ring: DialRing, i: int) -> str:
    return f"+{format_degrees(i * ring.step)}" if i else "0°"


def _extremes(dial: Dial) -> list[tuple[float, str]]:
    """(share of the firings, where) of the pose with most and of that with fewest; ties to the smaller turn."""
    places = [
        (int(count), f"{'mirrored and ' if mirrored else ''}at {_turn(ring, i)}")
        for mirrored, ring in enumerate(dial.rings)
        for i, count in enumerate(ring.counts.tolist())
    ]
    chosen = (max(places, key=lambda place: place[0]), min(places, key=lambda place: place[0]))
    return [(count / dial.firings, where) for count, where in chosen]


def gap_rule() -> str:
    """What counts as a gap, in a sentence."""
    return (
        f"A run of neighbouring poses in which the latent fired less than {percent(GAP_RATE)} as often as in its "
        f"average pose, too seldom for chance: of the latents that have no such poses, at most {percent(GAP_ERROR)} "
        "are given a gap. The test takes firings as independent, which those at neighbouring positions of one image "
        "are not."
    )


def dial_kinds(atlas: Any) -> Counter[str]:
    """How many live base latents have a dial of each kind; empty where poses were not counted."""
    dials = (atlas.dial(latent) for latent in range(int(atlas.n_latents)))
    return Counter(dial.kind for dial in dials if dial is not None)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def dials_words(kinds: Counter[str]) -> str:
    """Over all dials: `Of 57 base latents with more than one pose, 4 fire evenly in all of them.`; else empty."""
    total = sum(kinds.values()) - kinds["one"]
    if not total:
        return ""
    said = {
        "even": ("fires evenly in all of them", "fire evenly in all of them"),
        "uneven": ("fires unevenly but without a gap", "fire unevenly but without a gap"),
        "gaps": ("has gaps", "have gaps"),
        "few": ("fired too seldom to tell", "fired too seldom to tell"),
    }
    parts = [f"{kinds[kind]} {words[kinds[kind] != 1]}" for kind, words in said.items() if kinds[kind]]
    return f"Of {count_noun(total, 'base latent')} with more than one pose, {_listed(parts)}."


def tied_sentences(atlas: Any) -> list[str]:
    """What there is to say of base latents together: their atoms, shapes learned more than once, their dials."""
    copies = "rotated and mirrored copies" if atlas.group.kind == "dihedral" else "rotated copies"
    atoms = int(array(atlas.families.atoms).sum())
    found = [f"Each is given with all its {copies}: {count_noun(atoms, 'distinct atom')} in all."]
    sizes = [size for size in atlas.duplicates.sizes if size > 1]
    if sizes:
        shapes = "one shape" if len(sizes) == 1 else f"{len(sizes)} shapes"
        found.append(f"{sum(sizes)} base latents share {shapes}, learned more than once.")
    elif len(atlas.duplicates) > 1:
        found.append("No two base latents learned one shape.")
    words = [dials_words(dial_kinds(atlas)), residual_words(atlas)]
    return found + [sentence for sentence in words if sentence]


def residual_words(atlas: Any) -> str:
    """Of latents tied in part, how much of them is residual: the median, and where most is; else empty."""
    live = np.flatnonzero(~array(atlas.dead))
    if atlas.config.tied != "residual" or not len(live):
        return ""
    share = array(atlas.residual_share)
    most = int(live[np.argmax(share[live])])
    return (
        f"The copies are tied in part: in the median {percent(np.median(share[live]))} of a latent’s power is not "
        f"shared by its poses, at most {percent(share[most])} (latent {most})."
    )
