"""The banner: why the dictionary should not be read, as the first thing on the page."""

from __future__ import annotations

from groupcc.report.part import Page, ReportPart

__all__ = ["QualityPart"]


class QualityPart(ReportPart):
    """See the module."""

    template = "quality.html"

    @property
    def doubts(self) -> list[str]:
        """Each doubt with its remedy."""
        return self.atlas.quality.doubts

    @classmethod
    def of(cls, page: Page) -> QualityPart | None:
        return cls(page) if page.reader.atlas.quality.doubts else None
