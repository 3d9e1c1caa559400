"""Counts beside their nulls: what a network with random weights gives, and what raw orbits give."""

from __future__ import annotations

from typing import NamedTuple

from groupcc.analysis.evidence.null_counts import QUANTITIES, NullCounts, Share
from groupcc.report.null_words import quantity_words
from groupcc.report.part import Page, ReportPart

__all__ = ["NullsPart"]


class Row(NamedTuple):
    """One quantity: its words, the shares in the order of the columns in words, and whether it is claimed."""

    words: str
    shares: list[str]
    claimed: bool


class NullsPart(ReportPart):
    """See the module."""

    template = "nulls.html"

    def __init__(self, page: Page, nulls: NullCounts) -> None:
        super().__init__(page)
        self.nulls = nulls

    @classmethod
    def of(cls, page: Page) -> NullsPart | None:
        nulls = page.reader.atlas.nulls
        return None if nulls is None else cls(page, nulls)

    @property
    def columns(self) -> list[str]:
        """The headings."""
        named = ["this dictionary", "raw orbits"]
        return [*named, "random weights", "random weights, raw orbits"] if self.nulls.random is not None else named

    @property
    def rows(self) -> list[Row]:
        """A row a quantity."""
        sides = [self.nulls.own, self.nulls.raw]
        if self.nulls.random is not None:
            sides += [self.nulls.random, self.nulls.random_raw or {}]
        claims = self.nulls.claims or []
        return [
            Row(quantity_words(name, self.group), [_share(side.get(name)) for side in sides], name in claims)
            for name in QUANTITIES
            if any(side.get(name) is not None and side[name].high > 0 for side in sides)
        ]


def _share(share: Share | None) -> str:
    if share is None:
        return "—"
    return f"{100 * share.value:.0f} % ({100 * share.low:.0f} to {100 * share.high:.0f})"
