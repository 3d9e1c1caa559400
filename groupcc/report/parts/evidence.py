"""Evidence on a latent's card: whether its label is stated, and what decoder, encoder and activations say."""

from __future__ import annotations

from typing import ClassVar

from groupcc.analysis import Evidence
from groupcc.analysis.evidence.moved_activations import FEWEST_FIRINGS
from groupcc.report.part import Page, ReportPart

__all__ = ["MEASURED_ON", "EvidencePart"]

MEASURED_ON = {
    "held-out": "on held-out images",
    "training": "on training images",
    "unknown": "on images that training may have seen",
}
"""Values of `MeasuredOn.seen` in words."""


class EvidencePart(ReportPart):
    """See the module."""

    template = "evidence.html"
    fewest_firings: ClassVar[int] = FEWEST_FIRINGS

    def __init__(self, page: Page, evidence: Evidence) -> None:
        super().__init__(page)
        self.evidence = evidence

    @classmethod
    def of(cls, page: Page) -> EvidencePart | None:
        evidence = page.reader.atlas.evidence
        return None if evidence is None else cls(page, evidence)

    def read_off(self, latent: int) -> list[tuple[str, str, bool]]:
        """Returns (read off, stabilizer, whether it differs from the label) if there are estimates to compare."""
        read = {words: name for words, name in self.evidence.estimates[latent].items() if name is not None}
        if len(read) < 3:
            return []
        on = self.evidence.activations_on
        seen = {} if on is None else {"activations": f"activations {MEASURED_ON[on.seen]}"}
        return [(seen.get(words, words), name, name != read["label"]) for words, name in read.items()]

    def differing(self, latent: int) -> str:
        """Returns which of the estimates differ from the label, in words; empty if none does."""
        (_, own), *others = self.evidence.estimates[latent].items()
        names = [words for words, name in others if name not in (None, own)]
        verb = "differ" if len(names) > 1 or names == ["activations"] else "differs"
        return f"the {' and the '.join(names)} {verb}" if names else ""
