"""The verdict on one family at one read-out, and the reason for the verdict."""

from __future__ import annotations

from typing import Literal, NamedTuple

from groupcc.analysis.numbers import count_noun, listed, two_decimals
from groupcc.causal.scores import CONTROLS, FEWEST_IMAGES, NEGLIGIBLE, Estimate, Scores, Tally

__all__ = ["AS_WELL", "VERDICTS", "WORKS", "Judgement", "Verdict", "is_negligible", "judge"]

Verdict = Literal["yes", "place only", "not read", "no", "undecided"]

VERDICTS: tuple[Verdict, ...] = ("yes", "place only", "no", "not read", "undecided")
"""In the order in which they are listed."""

WORKS = 0.5
"""The score above which an interchange gives what the transformed image gives."""

AS_WELL = 0.05
"""A control whose score is less than this below that of the interchange does as well."""

AVERAGE_DOES_ALL = 0.01
"""If the average leaves less than this share of the change that taking the family out makes, too little is left to
score a failure by."""

NEVER_ACTIVE = "never active on these images"
AVERAGE_DOES = "the average in its place does as well, so neither pose nor place makes a difference"

IN_WORDS = {
    "placed": "moving the place alone",
    "unmoved": "moving neither place nor pose",
    "wrong": "moving by another transform",
    "random": "putting other latents in its place",
}


class Judgement(NamedTuple):
    """A verdict. `reason`: why none of the others was reached, or what else is to know; None if nothing."""

    verdict: Verdict
    reason: str | None = None


def is_negligible(*changes: float) -> bool:
    """Whether none of these changes, shares of the read-out's variance, is more than rounding or noise."""
    return max(changes) <= NEGLIGIBLE


def judge(scores: Scores, tally: Tally) -> Judgement:
    """Returns the verdict that `FamilyEffect` defines. Whatever the intervals can't tell is "undecided"."""
    if tally.images == 0:
        return Judgement("undecided", NEVER_ACTIVE)
    if tally.images < FEWEST_IMAGES:
        return Judgement("undecided", f"active on {_too_few(tally.images)}")
    ablated, averaged = scores.change("ablated"), scores.change("averaged")
    if is_negligible(ablated, averaged):
        return Judgement("not read")
    if not scores.known:
        return Judgement("undecided", AVERAGE_DOES)
    if scores.images < FEWEST_IMAGES:
        return Judgement("undecided", f"makes a difference on {_too_few(scores.images)}")
    reposed, measured = scores.of("reposed"), scores.of("measured")
    if reposed.low > WORKS:
        return _against_controls(scores)
    if averaged < AVERAGE_DOES_ALL * ablated:
        return Judgement("undecided", AVERAGE_DOES)
    if reposed.high >= WORKS:
        return Judgement("undecided", f"the score lies between {_ends(reposed, 'and')}")
    if measured.low <= WORKS:
        limits = _ends(measured, "and")
        return Judgement("undecided", f"the ceiling that the error of the dictionary sets lies between {limits}")
    return Judgement("no")


def _against_controls(scores: Scores) -> Judgement:
    """The verdict on a family whose interchange works."""
    above = {name: scores.above(name) for name in CONTROLS}
    as_well = [IN_WORDS[name] for name, more in above.items() if more.high < AS_WELL and name != "placed"]
    if above["placed"].high < AS_WELL:
        return Judgement("place only", f"{listed(as_well)} does as well too" if as_well else None)
    if as_well:
        return Judgement("undecided", f"{listed(as_well)} does as well")
    doubtful = {name: more for name, more in above.items() if more.low <= AS_WELL}
    if doubtful:
        name = min(doubtful, key=lambda control: doubtful[control].value)
        more = _ends(doubtful[name], "to")
        return Judgement("undecided", f"the score less that of {IN_WORDS[name]} is {more}")
    return Judgement("yes")


def _too_few(images: int) -> str:
    return f"{count_noun(images, 'image')}, and an interval needs {FEWEST_IMAGES}"


def _ends(interval: Estimate, word: str) -> str:
    return f"{two_decimals(interval.low)} {word} {two_decimals(interval.high)}"
