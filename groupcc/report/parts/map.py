"""The map: every latent a dot, drawn by the page's script from the table's columns `map_x` and `map_y`."""

from __future__ import annotations

from groupcc.report.part import Page, ReportPart

__all__ = ["Map"]


class Map(ReportPart):
    """See the module. `by_likeness`: places are by likeness alone; else families are discs."""

    template = "map.html"

    @classmethod
    def of(cls, page: Page) -> Map | None:
        return cls(page) if any(row.get("map_x") is not None for row in page.reader.table) else None

    @property
    def by_likeness(self) -> bool:
        return self.atlas.has_poses
