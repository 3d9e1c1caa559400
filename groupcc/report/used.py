"""What a causal check found of a family: on its card, and over all that were checked."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.analysis.numbers import count_noun, percent, two_decimals
from groupcc.report.pictures import element_words

__all__ = ["Setting", "Used", "used_by_family", "used_overview"]

OUTPUT = "output"
"""The read-out that every check has."""

CONTROLS = {"unmoved": "not moved", "wrong": "moved by another transform", "random": "other latents in its place"}

FEWEST_IMAGES = 3
"""Below this a check has no standard error."""


@dataclass(frozen=True)
class Used:
    """One family at one read-out. `where`: which, if there are several, else empty."""

    verdict: str
    where: str
    sentence: str


@dataclass(frozen=True)
class Setting:
    """What a check was made on, in words: its images, and the transforms of them."""

    images: str
    transforms: str

    @classmethod
    def of(cls, causal: Any | None, group: Group) -> Setting | None:
        """None without a check."""
        if causal is None:
            return None
        names = list(group.element_names)
        return cls(
            count_noun(causal.images, "image"),
            ", ".join(element_words(group, names.index(name)) for name in causal.elements),
        )


def used_by_family(causal: Any | None, atlas: Any) -> dict[int, list[Used]]:
    """By family, what `groupcc.causal_check` found; ArgumentError where it was of other families or weights."""
    if causal is None:
        return {}
    got = ""
    if getattr(causal, "families", None) != atlas.families.fingerprint():
        got = "one of other families"
    elif atlas.crosscoder not in (None, causal.crosscoder):
        got = "one of another crosscoder"
    if got:
        remedy = "Run it again with this atlas and its crosscoder, or leave it out."
        raise argument_error("causal", expected="a causal check of this atlas's families", got=got, remedy=remedy)
    several = len({effect.readout for effect in causal.effects}) > 1
    noun = "family" if atlas.duplicates is None else "latent"
    found: dict[int, list[Used]] = {}
    for effect in causal.effects:
        where = "" if not several else "at the output" if effect.readout == OUTPUT else f"at {effect.readout}"
        found.setdefault(effect.family, []).append(Used(effect.verdict, where, _sentence(effect, causal.images, noun)))
    return found


def _sentence(effect: Any, images: int, noun: str) -> str:
    if effect.reposed is None:
        return f"On these images it makes no difference there in which pose and place the {noun} is."
    error = "" if effect.reposed_error is None else f" ± {two_decimals(effect.reposed_error)}"
    controls = ", ".join(f"{words} {two_decimals(getattr(effect, name))}" for name, words in CONTROLS.items())
    text = (
        f"Score {two_decimals(effect.reposed)}{error}, ceiling {two_decimals(effect.measured)}. Controls: {controls}."
    )
    if effect.effect is not None:
        what = "the output" if effect.readout == OUTPUT else effect.readout
        share = percent(effect.effect).replace("< ", "less than ")
        text += f" Without the {noun}, {what} changes by {share} of its variance."
    if images < FEWEST_IMAGES:
        text += f" {count_noun(images, 'image').capitalize()} can’t say how sure that is."
    return text


def used_overview(found: dict[int, list[Used]], tied: bool) -> str:
    """How many families were checked and what came, at the output; empty where none was."""
    if not found:
        return ""
    counts = Counter(used[0].verdict for used in found.values())
    came = [f"{verdict} for {counts[verdict]:,}" for verdict in ("yes", "partly", "no", "unclear") if counts[verdict]]
    one, many = ("base latent", "base latents") if tied else ("family", "families")
    checked, it = (f"1 {one}", "it") if len(found) == 1 else (f"{len(found):,} {many}", "them")
    how = f"Checked for {checked} by moving {it} to other poses inside it"
    return f"Does the rest of the network use {it} so? {how}: {', '.join(came)}."
