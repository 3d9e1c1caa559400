"""The section of metrics: how well the dictionary describes the layer."""

from __future__ import annotations

import math

import numpy as np
from markupsafe import Markup

from groupcc.analysis.numbers import number, percent, shown
from groupcc.report.part import Page, ReportPart
from groupcc.report.svg import block_plot

__all__ = ["Metrics"]

METRIC_WORDS = {
    "fvu": ("FVU", "share of the activations' variance that the dictionary misses; 0 is perfect"),
    "explained_variance": ("Explained variance", "1 − FVU"),
    "l0": ("L0", "latents active at once, on average"),
    "dead_fraction": ("Dead latents", "share of latents that none of these examples activates"),
    "n_examples": ("Examples", "image positions these figures were measured on"),
}


class Metrics(ReportPart):
    """See the module. `rows`: (name, value, what it means). `plot`: FVU of each block."""

    template = "metrics.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.rows = self._rows()
        self.plot = self._plot()

    @classmethod
    def of(cls, page: Page) -> Metrics | None:
        part = cls(page)
        return part if part.rows or part.plot else None

    def _rows(self) -> list[tuple[str, str, str]]:
        measured, rows = self.page.metrics, []
        for key, (label, meaning) in METRIC_WORDS.items():
            value = measured.get(key)
            if value is None and key == "explained_variance" and measured.get("fvu") is not None:
                value = 1 - float(measured["fvu"])
            if value is not None:
                rows.append((label, percent(value) if key == "dead_fraction" else shown(value), meaning))
        for key, value in measured.items():
            if key not in METRIC_WORDS and key != "fvu_per_block" and not isinstance(value, (list, tuple, dict)):
                rows.append((str(key), shown(value), ""))
        return rows

    def _plot(self) -> Markup | None:
        values = self.page.metrics.get("fvu_per_block")
        if values is None or len(values) != self.group.order:
            return None
        values = np.array([math.nan if v is None else float(v) for v in values])
        if not np.isfinite(values).any():
            return None
        label = f"FVU of each block, {number(float(np.nanmean(values)))} on average"
        return block_plot(values.tolist(), self.group, label)
