"""The section that compares the dictionary with a plain sparse autoencoder."""

from __future__ import annotations

from groupcc.analysis.numbers import shown
from groupcc.report.part import Page, ReportPart

__all__ = ["Baseline"]


class Baseline(ReportPart):
    """See the module. `rows`: (address of the row's own report, values by `columns`). `verdicts`: sentences."""

    template = "baseline.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        rows = [{str(key): value for key, value in row.items()} for row in page.baseline]
        self.columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("verdict", "report")))
        self.rows = [(row.get("report"), [shown(row.get(column)) for column in self.columns]) for row in rows]
        self.verdicts = list(dict.fromkeys(str(row["verdict"]) for row in rows if row.get("verdict")))

    @classmethod
    def of(cls, page: Page) -> Baseline | None:
        return cls(page) if page.baseline else None
