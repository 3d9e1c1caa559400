"""What a causal check found of a family: on its card, and over all that were checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from groupcc.analysis.numbers import count_noun, percent, two_decimals
from groupcc.errors import argument_error
from groupcc.report.family_views import FamilyView
from groupcc.report.part import Page, ReportPart
from groupcc.report.pictures import element_words

if TYPE_CHECKING:
    from groupcc.causal import FamilyEffect

__all__ = ["Answer", "Causal"]

OUTPUT = "output"
"""The read-out that every check has."""

CONTROLS = {
    "placed": "place moved alone",
    "turned": "pose moved alone",
    "unmoved": "neither moved",
    "wrong": "moved by another transform",
    "random": "other latents in its place",
}


@dataclass(frozen=True)
class Answer:
    """One family at one read-out. `where`: which, if there are several, else empty."""

    verdict: str
    where: str
    sentence: str


class Causal(ReportPart):
    """Whether the network uses a family as the family says. `answers`: by family.

    Raises:
        ArgumentError: the check was of other families or of another crosscoder.
    """

    template = "causal.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        given = page.causal
        assert given is not None
        got = ""
        if getattr(given, "families", None) != self.atlas.families.fingerprint():
            got = "one of other families"
        elif self.atlas.crosscoder not in (None, given.crosscoder):
            got = "one of another crosscoder"
        if got:
            remedy = "Run it again with this atlas and its crosscoder, or leave it out."
            raise argument_error("causal", expected="a causal check of this atlas's families", got=got, remedy=remedy)
        self.noun = "latent" if self.atlas.has_poses else "family"
        self.images = count_noun(given.images, "image")
        names = list(self.group.element_names)
        self.transforms = ", ".join(element_words(self.group, names.index(name)) for name in given.elements)
        several = len({effect.readout for effect in given.effects}) > 1
        self.answers: dict[int, list[Answer]] = {}
        for effect in given.effects:
            where = "" if not several else "at the output" if effect.readout == OUTPUT else f"at {effect.readout}"
            answer = Answer(effect.verdict, where, self._sentence(effect))
            self.answers.setdefault(effect.family, []).append(answer)

    @classmethod
    def of(cls, page: Page) -> Causal | None:
        return None if page.causal is None else cls(page)

    def _sentence(self, effect: FamilyEffect) -> str:
        what = "the output" if effect.readout == OUTPUT else effect.readout
        if effect.verdict == "not read":
            return f"Without the {self.noun}, {what} stays as it is on these images."
        told = [*self._scores(effect)]
        if effect.verdict == "place only":
            told.append("Moving the place alone does as well, so nothing shows that poses are used.")
        if effect.reason is not None:
            told.append(f"{effect.reason[0].upper()}{effect.reason[1:]}.")
        if effect.effect:
            share = percent(effect.effect).replace("< ", "less than ")
            told.append(f"Without the {self.noun}, {what} changes by {share} of its variance.")
        return " ".join(told)

    def _scores(self, effect: FamilyEffect) -> Iterator[str]:
        """The score with its error and its ceiling, and the controls; a check of before has not all of them."""
        if effect.reposed is None or effect.measured is None:
            return
        error = "" if effect.reposed_error is None else f" ± {two_decimals(effect.reposed_error)}"
        yield f"Score {two_decimals(effect.reposed)}{error}, ceiling {two_decimals(effect.measured)}."
        known = {words: getattr(effect, name) for name, words in CONTROLS.items()}
        controls = [f"{words} {two_decimals(score)}" for words, score in known.items() if score is not None]
        yield f"Controls: {', '.join(controls)}."

    def overview(self) -> str:
        """Returns how many families were checked and what came, at the output; empty if none was."""
        from groupcc.causal import VERDICTS

        answers = self.answers
        if not answers:
            return ""
        counts = Counter(of_family[0].verdict for of_family in answers.values())
        came = [f"{verdict} for {counts[verdict]:,}" for verdict in VERDICTS if counts[verdict]]
        one, many = ("base latent", "base latents") if self.atlas.has_poses else ("family", "families")
        checked, it = (f"1 {one}", "it") if len(answers) == 1 else (f"{len(answers):,} {many}", "them")
        how = f"Checked for {checked} by moving {it} to other poses inside it"
        return f"Does the rest of the network use {it} so? {how}: {', '.join(came)}."

    def of_family(self, family: FamilyView) -> list[Answer]:
        """Returns the answers for a family's card."""
        return [] if self.atlas.has_poses else self.answers.get(family.family, [])

    def of_latent(self, latent: int) -> list[Answer]:
        """Returns the answers for its family, if that has no card and this is its reference."""
        families = self.atlas.families
        family = int(families.labels[latent])
        with_card = not self.atlas.has_poses and family in self.page.linked
        alone = family in self.answers and not with_card and families.references[family] == latent
        return self.answers[family] if alone else []
