"""Words for latents that have poses: what their dials say, how many atoms they stand for, and what is not shared."""

from __future__ import annotations

from collections import Counter

import numpy as np

from groupcc.analysis import GAP_ERROR, GAP_RATE, Atlas, Dial, DialRing
from groupcc.analysis.families.dial import DialKind
from groupcc.analysis.numbers import count_noun, listed, percent
from groupcc.groups.planar import format_degrees

__all__ = ["dial_sentence", "dials_words", "gap_rule", "poses_words"]

NAMED_GAPS = 3
"""Gaps of one ring that a sentence names."""


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
    """Returns (share of the firings, where) of the pose with most and of that with fewest, ties to the smaller turn."""
    places = [
        (int(count), f"{'mirrored and ' if mirrored else ''}at {_turn(ring, i)}")
        for mirrored, ring in enumerate(dial.rings)
        for i, count in enumerate(ring.counts.tolist())
    ]
    chosen = (max(places, key=lambda place: place[0]), min(places, key=lambda place: place[0]))
    return [(count / dial.firings, where) for count, where in chosen]


def gap_rule() -> str:
    """Returns what counts as a gap, in a sentence."""
    return (
        f"A run of neighbouring poses in which the latent fired less than {percent(GAP_RATE)} as often as in its "
        f"average pose, too seldom for chance: of the latents that have no such poses, at most {percent(GAP_ERROR)} "
        "are given a gap. The test takes firings as independent, which those at neighbouring positions of one image "
        "are not."
    )


def dials_words(atlas: Atlas) -> str:
    """Returns `Of 57 base latents with more than one pose, 4 fire evenly in all of them.`; empty if there is none."""
    dials = (atlas.dial(latent) for latent in range(atlas.n_latents))
    kinds: Counter[DialKind] = Counter(dial.kind for dial in dials if dial is not None and dial.kind != "one")
    if not kinds:
        return ""
    said: dict[DialKind, tuple[str, str]] = {
        "even": ("fires evenly in all of them", "fire evenly in all of them"),
        "uneven": ("fires unevenly but without a gap", "fire unevenly but without a gap"),
        "gaps": ("has gaps", "have gaps"),
        "few": ("fired too seldom to tell", "fired too seldom to tell"),
    }
    parts = [f"{kinds[kind]} {words[kinds[kind] != 1]}" for kind, words in said.items() if kinds[kind]]
    return f"Of {count_noun(kinds.total(), 'base latent')} with more than one pose, {listed(parts)}."


def poses_words(atlas: Atlas) -> list[str]:
    """Returns what there is to say of base latents together: atoms, shapes learned more than once, dials, residuals."""
    assert atlas.families.atoms is not None
    copies = "rotated and mirrored copies" if atlas.group.kind == "dihedral" else "rotated copies"
    atoms = int(atlas.families.atoms.sum())
    sentences = [f"Each is given with all its {copies}: {count_noun(atoms, 'distinct atom')} in all."]
    sizes = [size for size in atlas.searched.sizes if size > 1]
    if sizes:
        shapes = "one shape" if len(sizes) == 1 else f"{len(sizes)} shapes"
        sentences.append(f"{sum(sizes)} base latents share {shapes}, learned more than once.")
    elif len(atlas.searched) > 1:
        sentences.append("No two base latents learned one shape.")
    return sentences + [words for words in (dials_words(atlas), _residual_words(atlas)) if words]


def _residual_words(atlas: Atlas) -> str:
    """Returns how much of latents tied in part is residual, the median and the most; empty if none is tied in part."""
    live = np.flatnonzero(~atlas.dead.numpy())
    if not atlas.has_residuals or atlas.residual_share is None or not len(live):
        return ""
    share = atlas.residual_share.numpy()
    most = int(live[np.argmax(share[live])])
    return (
        f"The copies are tied in part: in the median {percent(np.median(share[live]))} of a latent’s power is not "
        f"shared by its poses, at most {percent(share[most])} (latent {most})."
    )
