"""Symmetry in plain words: what a kind, a stabilizer, a pose and a whole atlas are called on the page."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from groupcc.groups import Group
from groupcc.groups.algebra import format_degrees
from groupcc.report.dials import dial_kinds, dials_words, tied_sentences
from groupcc.analysis.numbers import array, count_noun, number, percent

__all__ = [
    "EDGE_LIMIT",
    "KIND_KEYS",
    "Kind",
    "family_sizes",
    "family_words",
    "headline",
    "kind_of",
    "kinds_for",
    "pose_words",
    "scaling_words",
    "shape_hint",
    "stabilizer_words",
    "summary",
]

KIND_KEYS = ("invariant", "90", "180", "other-rotation", "mirror", "none", "dead")
"""Every `Stabilizer.kind`, in the order of the page."""

EDGE_LIMIT = -0.15
"""A latent with one mirror whose autocorrelation at 180° is below this is called edge-like: its contrast reverses."""


@dataclass(frozen=True)
class Kind:
    """A kind of symmetry as the page speaks of it.

    `title` heads a section, `short` names the shape to expect, `verb` completes "12 …" in the headline (singular,
    plural), `about` is one sentence for the reader who has never seen the project.
    """

    key: str
    title: str
    short: str
    verb: tuple[str, str]
    about: str


def kind_of(key: str, group: Group) -> Kind:
    """The words for one `Stabilizer.kind`; they depend on what the group can tell apart.

    Under few rotations "invariant" is a weaker finding than "the same at every angle", and without reflections in
    the group nothing is known about mirrors, so neither is claimed.
    """
    if group.order == 1 and key != "dead":
        about = "The group has one element, which changes nothing: there was nothing to compare."
        return Kind(key, "No symmetry tested", "not tested", ("was not tested", "were not tested"), about)
    mirrors = group.kind == "dihedral"
    many = group.n >= 8
    step = format_degrees(360 / group.n)
    if key == "invariant":
        shape = "circle- or texture-like" if many else "circle-, texture- or grid-like"
        if many:
            title, verb = "The same at every angle", ("looks the same at every angle", "look the same at every angle")
        else:
            title = f"The same under all of {group.name}"
            verb = (f"is the same under all of {group.name}", f"are the same under all of {group.name}")
        tested = f"any turn by a multiple of {step}" + (" and any mirroring" if mirrors else "")
        about = f"Circles, spots, even textures, plain colours: {tested} leaves them as they are."
        return Kind(key, title, shape, verb, about)
    table = {
        "90": Kind(
            key,
            "Repeats every 90°",
            "cross- or grid-like",
            ("repeats every 90°", "repeat every 90°"),
            "Crosses, grids and hatching: a quarter turn gives the same pattern, smaller turns do not.",
        ),
        "180": Kind(
            key,
            "Repeats every 180°",
            "line-like",
            ("repeats every 180°", "repeat every 180°"),
            "Lines, bars and stripes: they turn with the image and come back to themselves after half a turn.",
        ),
        "other-rotation": Kind(
            key,
            "Repeats at another angle",
            "star-like",
            ("repeats at another angle", "repeat at another angle"),
            "Stars and triangles: some turn other than 90° or 180° gives the same pattern.",
        ),
        "mirror": Kind(
            key,
            "Moves with the image, one mirror line",
            "curve- or edge-like",
            ("moves with the image and has one mirror line", "move with the image and have one mirror line"),
            "Curves, edges and corners: only the full turn brings them back; one mirror line leaves them as they are.",
        ),
        "none": Kind(
            key,
            "Moves with the image, no mirror line",
            "irregular or spiral-like",
            ("moves with the image and has no mirror line", "move with the image and have no mirror line"),
            "Irregular patterns, hooks, spirals: no turn and no mirroring leaves them as they are.",
        ),
        "dead": Kind(
            key,
            "Never active",
            "dead",
            ("never fired", "never fired"),
            "These latents were not active on any example, so nothing is claimed about them.",
        ),
    }
    if key not in table:
        return Kind(key, key, "", ("is unclassified", "are unclassified"), "")
    if key == "none" and not mirrors:
        return Kind(
            key,
            "Moves with the image",
            "curve-, edge- or spiral-like",
            ("moves with the image", "move with the image"),
            "Curves, edges, corners, spirals: only the full turn brings them back. This group has no mirrors to tell "
            "them apart by.",
        )
    return table[key]


def kinds_for(group: Group, present: set[str]) -> list[Kind]:
    """The kinds to list: those present, and those this group can find even where there are none of them."""
    possible = {"none"}
    if group.order > 1:
        possible |= {"invariant"}
        possible |= {"mirror"} if group.kind == "dihedral" else set()
        possible |= {"180"} if group.n % 2 == 0 and group.order > 2 else set()
    order = [*KIND_KEYS, *sorted(present - set(KIND_KEYS))]
    return [kind_of(key, group) for key in order if key in possible | present]


def shape_hint(kind: str, correlation_G: np.ndarray, group: Group, stabilizer_name: str) -> str:
    """What a latent of this kind most often is, in a word or two; the patches decide.

    `correlation_G` is the latent's autocorrelation. With one mirror line, C(180°) < `EDGE_LIMIT` (the contrast
    reverses after half a turn) reads edge-like, otherwise curve-like. A repeat at 180° without a mirror is S-like.
    """
    if kind == "mirror" and group.n % 2 == 0:
        return "edge-like" if correlation_G[group.n // 2] < EDGE_LIMIT else "curve-like"
    if kind == "180" and stabilizer_name.startswith("C") and group.kind == "dihedral":
        return "S-curve-like"
    return kind_of(kind, group).short


def _directions(axis: float, rotations: int) -> str:
    angles = sorted((axis + 180 * k / rotations) % 180 for k in range(rotations))
    shown = [f"{math.floor(angle + 0.5)}°" for angle in angles]
    if rotations == 1:
        return f"mirror line at {shown[0]}"
    if rotations == 2:
        return f"mirror lines at {shown[0]} and {shown[1]}"
    return f"mirror lines every {format_degrees(180 / rotations)}, one at {shown[0]}"


def stabilizer_words(stabilizer: Any, group: Group) -> str:
    """A stabilizer as a sentence: `Repeats every 180°; mirror lines at 67° and 157°.`"""
    if stabilizer.kind == "dead":
        return "Was never active, so its symmetry is not read."
    if group.order == 1:
        return "No symmetry was tested: the group has one element."
    mask = array(stabilizer.mask).astype(bool)
    rotations = int((mask & ~group.reflections).sum())
    mirrored = bool((mask & group.reflections).any())
    if rotations == group.n and group.n > 1:
        if mirrored:
            return "The same under every turn and every mirroring."
        return "The same under every turn" + (", but not mirrored." if group.kind == "dihedral" else ".")
    if rotations > 1:
        text = f"Repeats every {format_degrees(360 / rotations)}"
    else:
        text = "No turn leaves it the same" if group.n > 1 else "No turn was tested"
    if mirrored:
        text += f"; {_directions(float(stabilizer.axis or 0.0), rotations)}"
    elif group.kind == "dihedral":
        text += "; no mirror line"
    return text + "."


def pose_words(group: Group, pose: int, stabilizer_mask: np.ndarray) -> tuple[int, str, float]:
    """The plainest name of a pose: (element, words, sort key).

    With d = R_pose d_ref, poses h and hk are the same for every k in the reference's stabilizer, so of the coset
    the rotation by the smallest angle is named; a mirrored one only where the coset has no rotation. A rotation is
    only exchanged for a rotation: a mirror line between two elements makes the mirrored members of the coset
    approximate.
    """
    coset = group.cayley[pose, np.flatnonzero(stabilizer_mask)]
    turns = coset[~group.reflections[coset]]
    if not group.reflections[pose]:
        same_sort = turns if len(turns) else np.array([pose])
    else:
        same_sort = turns if len(turns) else coset
    element = int(same_sort[np.argmin(group.angles[same_sort])]) if len(same_sort) else pose
    degrees = math.degrees(group.angles[element])
    mirrored = bool(group.reflections[element])
    turn = f"+{format_degrees(degrees)}" if degrees > 1e-9 else "0°"
    words = turn if not mirrored else ("mirrored" if degrees < 1e-9 else f"mirrored, {turn}")
    return element, words, degrees + 360.0 * mirrored


def scaling_words(blocks: list[str]) -> str:
    """What the data says of the blocks, from the verdict on each: `The data agrees with 30 of its 32 blocks; ….`"""
    counts, n = Counter(blocks), len(blocks)
    if counts["present"] == n:
        return "The data agrees with its only block." if n == 1 else f"The data agrees with all its {n} blocks."
    told = {
        "shrunk": ("is weaker than in the data", "are weaker than in the data"),
        "carried": ("is empty as other latents write what is there", "are empty as other latents write what is there"),
        "absent": ("has nothing in the data", "have nothing in the data"),
        "unclear": ("is too noisy to judge", "are too noisy to judge"),
    }
    parts = [f"{counts[key]} {verbs[counts[key] > 1]}" for key, verbs in told.items() if counts[key]]
    return f"The data agrees with {counts['present']} of its {n} blocks; {', '.join(parts)}."


def family_words(n_members: int, n_covered: int, n_orientations: int) -> str:
    """How many of a pattern's distinct orientations a family's latents cover, as a sentence."""
    latents = count_noun(n_members, "latent")
    if n_orientations == 1:
        return f"{latents} for one pattern that looks alike in every orientation: near-duplicates."
    if n_covered == n_orientations:
        text = f"{latents}: one pattern at all {n_orientations} of its orientations"
    else:
        text = f"{latents}: one pattern at {n_covered} of its {n_orientations} orientations"
    shared = n_members - n_covered
    return (
        f"{text}; {shared} {'shares' if shared == 1 else 'share'} an orientation with another."
        if shared
        else f"{text}."
    )


def _kind_counts(atlas: Any) -> Counter[str]:
    return Counter(str(kind) for kind in atlas.kinds)


def family_sizes(atlas: Any) -> list[int]:
    """Sizes of the families with at least two members that were found, largest first.

    Of a tied crosscoder, whose families are given, those of base latents that learned one shape.
    """
    labels = array((atlas.families if atlas.duplicates is None else atlas.duplicates).labels)
    return sorted((c for c in np.bincount(labels[labels >= 0]).tolist() if c > 1), reverse=True)


def headline(atlas: Any) -> list[str]:
    """The finding in plain sentences: counts by kind, families, dead latents."""
    counts = _kind_counts(atlas)
    live = int(atlas.n_latents) - counts["dead"]
    tied = atlas.duplicates is not None
    sentences = []
    if live == 0:
        sentences.append(f"None of the {count_noun(int(atlas.n_latents), 'latent')} was ever active.")
    elif atlas.group.order == 1:
        sentences.append(
            f"{count_noun(live, 'live latent')}, analysed under the trivial group {atlas.group.name}: with no turns "
            "and no mirrors, symmetry says nothing here."
        )
    else:
        parts = []
        for kind in kinds_for(atlas.group, set(counts)):
            n = counts[kind.key]
            if n and kind.key != "dead":
                hint = f" ({kind.short})" if kind.short else ""
                parts.append(f"{n} {kind.verb[0] if n == 1 else kind.verb[1]}{hint}")
        listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
        sentences.append(f"Of {count_noun(live, 'live base latent' if tied else 'live latent')}, {listed}.")
    sizes = family_sizes(atlas)
    if tied and live:
        sentences += tied_sentences(atlas)
    elif sizes:
        what = "rotated or mirrored" if atlas.group.kind == "dihedral" else "rotated"
        copies = "copies" if atlas.group.order == 1 else f"{what} copies of one another"
        families = "1 family" if len(sizes) == 1 else f"{len(sizes)} families"
        sentences.append(f"{sum(sizes)} of them belong to {families} of {copies}.")
    elif live > 1 and atlas.group.order > 1:
        sentences.append("No two of them were found to be copies of one another.")
    if counts["dead"] and live:
        sentences.append(f"{counts['dead']} more never fired and {'is' if counts['dead'] == 1 else 'are'} left out.")
    contribution = getattr(atlas, "contribution", None)
    if contribution is not None and (spare := int(contribution.spare.sum())):
        verb, explain, belong = ("is", "explains", "is") if spare == 1 else ("are", "explain", "are")
        sentences.append(
            f"{spare} {verb} spare: active, but {explain} next to nothing, and {belong} left out of families."
        )
    return sentences


def summary(atlas: Any) -> str:
    """The atlas in a few lines for a terminal: latents by kind, families, and the metrics where there are any."""
    group = atlas.group
    counts = _kind_counts(atlas)
    mirrors = f", {count_noun(group.n, 'mirror')}" if group.kind == "dihedral" else ""
    tied = atlas.duplicates is not None
    noun = "base latent" if tied else "latent"
    lines = [f"{count_noun(int(atlas.n_latents), noun)} under {group.name} ({count_noun(group.n, 'turn')}{mirrors})"]
    kinds = [kind for kind in kinds_for(group, set(counts)) if counts[kind.key]]
    width = max((len(kind.title) for kind in kinds), default=0)
    for kind in kinds:
        hint = "" if kind.key == "dead" else kind.short
        lines.append(f"{counts[kind.key]:7d}  {kind.title:<{width}}  {hint}".rstrip())
    sizes = family_sizes(atlas)
    if sizes:
        families = "1 family" if len(sizes) == 1 else f"{len(sizes)} families"
        lines.append(f"{families} of copies, {sum(sizes)} {noun}s in all; the largest has {sizes[0]}")
    if tied:
        lines.append(f"{count_noun(sum(atlas.families.sizes), 'distinct atom')} in the given poses")
        lines += [words for words in [dials_words(dial_kinds(atlas))] if words]
    metrics = atlas.metrics or {}
    shown = [
        f"{label} {percent(metrics[key]) if key == 'dead_fraction' else number(metrics[key])}"
        for key, label in (("fvu", "FVU"), ("l0", "L0"), ("dead_fraction", "dead"))
        if metrics.get(key) is not None
    ]
    if shown:
        lines.append(f"over all {metrics['n_examples']:,} examples: " + ", ".join(shown))
    return "\n".join(lines)
