"""What a causal check found of a family: on its card, and over all that were checked."""

from __future__ import annotations

from collections import Counter
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

CONTROLS = {"unmoved": "not moved", "wrong": "moved by another transform", "random": "other latents in its place"}

FEWEST_IMAGES = 3
"""Images from which a check has a standard error."""


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
            answer = Answer(effect.verdict, where, self._sentence(effect, given.images))
            self.answers.setdefault(effect.family, []).append(answer)

    @classmethod
    def of(cls, page: Page) -> Causal | None:
        return None if page.causal is None else cls(page)

    def _sentence(self, effect: FamilyEffect, images: int) -> str:
        if effect.reposed is None or effect.measured is None:
            return f"On these images it makes no difference there in which pose and place the {self.noun} is."
        error = "" if effect.reposed_error is None else f" ± {two_decimals(effect.reposed_error)}"
        controls = ", ".join(f"{words} {two_decimals(getattr(effect, name))}" for name, words in CONTROLS.items())
        text = f"Score {two_decimals(effect.reposed)}{error}, ceiling {two_decimals(effect.measured)}."
        text += f" Controls: {controls}."
        if effect.effect is not None:
            what = "the output" if effect.readout == OUTPUT else effect.readout
            share = percent(effect.effect).replace("< ", "less than ")
            text += f" Without the {self.noun}, {what} changes by {share} of its variance."
        if images < FEWEST_IMAGES:
            text += f" {count_noun(images, 'image').capitalize()} can’t say how sure that is."
        return text

    def overview(self) -> str:
        """Returns how many families were checked and what came, at the output; empty if none was."""
        answers = self.answers
        if not answers:
            return ""
        counts = Counter(of_family[0].verdict for of_family in answers.values())
        order = ("yes", "partly", "no", "unclear")
        came = [f"{verdict} for {counts[verdict]:,}" for verdict in order if counts[verdict]]
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
