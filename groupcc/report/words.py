"""Symmetry in plain words: what a kind, a stabilizer, a pose and a whole atlas are called on the page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from groupcc.analysis import KINDS, Atlas, Stabilizer
from groupcc.analysis.numbers import count_noun, listed, number, percent
from groupcc.groups import PlanarGroup
from groupcc.groups.planar import format_degrees
from groupcc.report.null_words import claim
from groupcc.report.pose_words import dials_words, poses_words

__all__ = [
    "EDGE_LIMIT",
    "Kind",
    "family_sizes",
    "family_words",
    "headline",
    "kind_of",
    "kinds_for",
    "pose_words",
    "shape_hint",
    "stabilizer_words",
    "summary",
]

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


WORDS = {
    "90": Kind(
        "90",
        "Repeats every 90°",
        "cross- or grid-like",
        ("repeats every 90°", "repeat every 90°"),
        "Crosses, grids and hatching: a quarter turn gives the same pattern, smaller turns do not.",
    ),
    "180": Kind(
        "180",
        "Repeats every 180°",
        "line-like",
        ("repeats every 180°", "repeat every 180°"),
        "Lines, bars and stripes: they turn with the image and come back to themselves after half a turn.",
    ),
    "other-rotation": Kind(
        "other-rotation",
        "Repeats at another angle",
        "star-like",
        ("repeats at another angle", "repeat at another angle"),
        "Stars and triangles: some turn other than 90° or 180° gives the same pattern.",
    ),
    "mirror": Kind(
        "mirror",
        "Moves with the image, one mirror line",
        "curve- or edge-like",
        ("moves with the image and has one mirror line", "move with the image and have one mirror line"),
        "Curves, edges and corners: only the full turn brings them back; one mirror line leaves them as they are.",
    ),
    "none": Kind(
        "none",
        "Moves with the image, no mirror line",
        "irregular or spiral-like",
        ("moves with the image and has no mirror line", "move with the image and have no mirror line"),
        "Irregular patterns, hooks, spirals: no turn and no mirroring leaves them as they are.",
    ),
    "undecided": Kind(
        "undecided",
        "Undecided",
        "undecided",
        ("is undecided", "are undecided"),
        "No symmetry is stated. Each card says why, and what the best guess is.",
    ),
    "dead": Kind(
        "dead",
        "Never active",
        "dead",
        ("never fired", "never fired"),
        "These latents were not active on any example, so nothing is claimed about them.",
    ),
}
"""Kinds whose words do not depend on the group, but for the trivial group."""

NONE_WITHOUT_MIRRORS = Kind(
    "none",
    "Moves with the image",
    "curve-, edge- or spiral-like",
    ("moves with the image", "move with the image"),
    "Curves, edges, corners, spirals: only the full turn brings them back. This group has no mirrors to tell them "
    "apart by.",
)


def kind_of(key: str, group: PlanarGroup) -> Kind:
    """Returns the words for one `Stabilizer.kind`; they depend on what the group can tell apart.

    Under few rotations "invariant" is a weaker finding than "the same at every angle". Without reflections in the group
    nothing is known about mirrors. So neither is claimed.
    """
    if group.order == 1 and key not in ("undecided", "dead"):
        about = "The group has one element, which changes nothing: there was nothing to compare."
        return Kind(key, "No symmetry tested", "not tested", ("was not tested", "were not tested"), about)
    if key == "invariant":
        return _invariant(group)
    return NONE_WITHOUT_MIRRORS if key == "none" and group.kind == "cyclic" else WORDS[key]


def _invariant(group: PlanarGroup) -> Kind:
    mirroring = " and any mirroring" if group.kind == "dihedral" else ""
    tested = f"any turn by a multiple of {format_degrees(360 / group.n)}{mirroring}"
    about = f"Circles, spots, even textures, plain colours: {tested} leaves them as they are."
    if group.n >= 8:
        verb = ("looks the same at every angle", "look the same at every angle")
        return Kind("invariant", "The same at every angle", "circle- or texture-like", verb, about)
    verb = (f"is the same under all of {group.name}", f"are the same under all of {group.name}")
    title = f"The same under all of {group.name}"
    return Kind("invariant", title, "circle-, texture- or grid-like", verb, about)


def kinds_for(group: PlanarGroup, present: set[str]) -> list[Kind]:
    """Returns the kinds to list: those present, and those that this group can find even if there are none of them."""
    possible = {"none"}
    if group.order > 1:
        possible |= {"invariant"}
        possible |= {"mirror"} if group.kind == "dihedral" else set()
        possible |= {"180"} if group.n % 2 == 0 and group.order > 2 else set()
    return [kind_of(key, group) for key in KINDS if key in possible | present]


def shape_hint(kind: str, correlation_G: np.ndarray, group: PlanarGroup, stabilizer_name: str) -> str:
    """Returns what a latent of this kind most often is, in a word or two; the patches decide.

    `correlation_G` is the latent's autocorrelation. With one mirror line it is edge-like if C(180°) < `EDGE_LIMIT` (the
    contrast reverses after half a turn), else curve-like. A repeat at 180° without a mirror is S-like.
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


def stabilizer_words(stabilizer: Stabilizer, group: PlanarGroup) -> str:
    """Returns a stabilizer as a sentence: `Repeats every 180°; mirror lines at 67° and 157°.`"""
    if stabilizer.kind == "dead":
        return "Was never active, so its symmetry is not read."
    if group.order == 1:
        return "No symmetry was tested: the group has one element."
    rotations = int((stabilizer.mask & ~group.reflections).sum())
    mirrored = bool((stabilizer.mask & group.reflections).any())
    if rotations == group.n and group.n > 1:
        if mirrored:
            return "The same under every turn and every mirroring."
        return "The same under every turn" + (", but not mirrored." if group.kind == "dihedral" else ".")
    if rotations > 1:
        text = f"Repeats every {format_degrees(360 / rotations)}"
    else:
        text = "No turn leaves it the same" if group.n > 1 else "No turn was tested"
    if mirrored:
        text += f"; {_directions(stabilizer.axis or 0.0, rotations)}"
    elif group.kind == "dihedral":
        text += "; no mirror line"
    return text + "."


def pose_words(group: PlanarGroup, pose: int, stabilizer_mask: np.ndarray) -> tuple[int, str, float]:
    """Returns the plainest name of a pose: (element, words, sort key).

    With d = R_pose d_ref, poses h and hk are the same for every k in the reference's stabilizer. Of this coset the
    rotation by the smallest angle is named, or if it has none the mirrored pose with the smallest one.
    """
    coset = group.cayley[pose, np.flatnonzero(stabilizer_mask)]
    turns = coset[~group.reflections[coset]]
    same_sort = turns if len(turns) else coset
    element = int(same_sort[np.argmin(group.angles[same_sort])])
    degrees = math.degrees(group.angles[element])
    mirrored = bool(group.reflections[element])
    turn = f"+{format_degrees(degrees)}" if degrees > 1e-9 else "0°"
    words = turn if not mirrored else ("mirrored" if degrees < 1e-9 else f"mirrored, {turn}")
    return element, words, degrees + 360.0 * mirrored


def family_words(n_members: int, n_covered: int, n_orientations: int) -> str:
    """Returns how many of a pattern's distinct orientations a family's latents cover, as a sentence."""
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


def family_sizes(atlas: Atlas) -> list[int]:
    """Returns the sizes of the families with at least two latents that were searched for, largest first."""
    labels = atlas.searched.labels.numpy()
    return sorted((c for c in np.bincount(labels[labels >= 0]).tolist() if c > 1), reverse=True)


def headline(atlas: Atlas) -> list[str]:
    """Returns the finding in plain sentences: counts by kind, families, dead latents."""
    counts = atlas.kind_counts
    live = atlas.n_latents - counts["dead"]
    sentences = [text for text in (claim(atlas), _kinds_sentence(atlas, live)) if text]
    sizes = family_sizes(atlas)
    if atlas.has_poses and live:
        sentences += poses_words(atlas)
    elif sizes:
        what = "rotated or mirrored" if atlas.group.kind == "dihedral" else "rotated"
        copies = "copies" if atlas.group.order == 1 else f"{what} copies of one another"
        sentences.append(f"{sum(sizes)} of them belong to {_families(sizes)} of {copies}.")
    elif live > 1 and atlas.group.order > 1:
        sentences.append("No two of them were found to be copies of one another.")
    if counts["dead"] and live:
        sentences.append(f"{counts['dead']} more never fired and {'is' if counts['dead'] == 1 else 'are'} left out.")
    spare = 0 if atlas.contribution is None else int(atlas.contribution.spare.sum())
    if spare:
        verb, explain, belong = ("is", "explains", "is") if spare == 1 else ("are", "explain", "are")
        sentences.append(
            f"{spare} {verb} spare: active, but {explain} next to nothing, and {belong} left out of families."
        )
    return sentences


def _kinds_sentence(atlas: Atlas, live: int) -> str:
    if live == 0:
        return f"None of the {count_noun(atlas.n_latents, 'latent')} was ever active."
    if atlas.group.order == 1:
        return (
            f"{count_noun(live, 'live latent')}, analysed under the trivial group {atlas.group.name}: with no turns "
            "and no mirrors, symmetry says nothing here."
        )
    counts = [(kind_of(key, atlas.group), n) for key, n in atlas.kind_counts.items() if n and key != "dead"]
    parts = [f"{n} {kind.verb[n != 1]}" + (f" ({kind.short})" if kind.key != "undecided" else "") for kind, n in counts]
    return f"Of {count_noun(live, 'live base latent' if atlas.has_poses else 'live latent')}, {listed(parts)}."


def _families(sizes: list[int]) -> str:
    return "1 family" if len(sizes) == 1 else f"{len(sizes)} families"


def summary(atlas: Atlas) -> str:
    """Returns the atlas in a few lines for a terminal: latents by kind, families, and the metrics if there are any."""
    group, noun = atlas.group, "base latent" if atlas.has_poses else "latent"
    mirrors = f", {count_noun(group.n, 'mirror')}" if group.kind == "dihedral" else ""
    lines = [f"Not to be read as a finding: {doubt}" for doubt in atlas.quality.doubts]
    lines += [f"{count_noun(atlas.n_latents, noun)} under {group.name} ({count_noun(group.n, 'turn')}{mirrors})"]
    kinds = [(kind_of(key, group), n) for key, n in atlas.kind_counts.items() if n]
    width = max((len(kind.title) for kind, _ in kinds), default=0)
    for kind, n in kinds:
        hint = "" if kind.key in ("undecided", "dead") else kind.short
        lines.append(f"{n:7d}  {kind.title:<{width}}  {hint}".rstrip())
    sizes = family_sizes(atlas)
    if sizes:
        lines.append(f"{_families(sizes)} of copies, {sum(sizes)} {noun}s in all; the largest has {sizes[0]}")
    if atlas.has_poses:
        lines.append(f"{count_noun(sum(atlas.families.sizes), 'distinct atom')} in the given poses")
        lines += [words for words in [dials_words(atlas)] if words]
    lines += [text for text in [claim(atlas)] if text] + _quality_lines(atlas)
    metrics = atlas.metrics or {}
    shown = [
        f"{label} {percent(metrics[key]) if key == 'dead_fraction' else number(metrics[key])}"
        for key, label in (("fvu", "FVU"), ("l0", "L0"), ("dead_fraction", "dead"))
        if metrics.get(key) is not None
    ]
    if shown:
        lines.append(f"over all {metrics['n_examples']:,} examples: " + ", ".join(shown))
    return "\n".join(lines)


def _quality_lines(atlas: Atlas) -> list[str]:
    """Returns what training recorded, held-out figures first."""
    lines, quality = [], atlas.quality
    if quality.held_out_fvu is not None:
        photographs = count_noun(quality.held_out_photographs or 0, "photograph")
        lines.append(f"held out ({photographs}): FVU {number(quality.held_out_fvu)}")
    if quality.training_fvu is not None and quality.dead_fraction is not None:
        photographs = count_noun(quality.photographs or 0, "photograph")
        dead = percent(quality.dead_fraction)
        lines.append(f"trained on ({photographs}): FVU {number(quality.training_fvu)}, dead {dead}")
    return lines
