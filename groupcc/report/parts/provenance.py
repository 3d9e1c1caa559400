"""The section of provenance: what was analysed, and by which version the page was written."""

from __future__ import annotations

from collections.abc import Mapping

from groupcc import __version__
from groupcc.analysis.numbers import shown
from groupcc.report.part import Page, ReportPart

__all__ = ["Provenance"]

WORDS = {
    "model": "Model",
    "layer": "Layer",
    "group": "Group",
    "n_images": "Images",
    "n_examples": "Examples",
}


class Provenance(ReportPart):
    """See the module. `rows`: (what, value)."""

    template = "provenance.html"
    version = __version__

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.rows = []
        for key, value in page.facts.items():
            label = WORDS.get(str(key), str(key).replace("_", " "))
            if isinstance(value, Mapping):
                self.rows += [(f"{label}: {inner}", shown(item)) for inner, item in value.items()]
            elif value is not None:
                self.rows.append((label, shown(value)))
