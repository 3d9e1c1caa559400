"""Counts over all live latents, in a row under the kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from groupcc.report.part import Page, ReportPart
from groupcc.report.parts.evidence import MEASURED_ON

__all__ = ["Counts", "overview_counts"]


class Counts(ReportPart):
    """How many latents are chiral, undecided, broken, near misses, and in how many other estimates disagree."""

    template = "counts.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self.rows = overview_counts(self.reader.table)

    @classmethod
    def of(cls, page: Page) -> Counts | None:
        part = cls(page)
        return part if part.rows else None


def overview_counts(table: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns (what, how many) from the atlas's table; only what was measured."""
    live = [row for row in table if row["kind"] != "dead"]
    chirality = Counter(row.get("chirality") for row in live)
    chiral = sum(chirality[kind] for kind in ("partner", "no partner", "unclear"))
    counts = []
    if chiral + chirality["achiral"]:
        partners = f"{chirality['partner']:,} of them with their mirror image" if chirality["partner"] else ""
        counts.append(("chiral", f"{chiral:,}" + (f" ({partners})" if partners else "")))
    for column, words in (("undecided", "undecided"), ("broken", "broken symmetry"), ("near_miss", "near misses")):
        if live and column in live[0]:
            counts.append((words, f"{sum(bool(row[column]) for row in live):,}"))
    for column, words in (
        ("stabilizer_activations", "activations disagree"),
        ("stabilizer_decoder", "decoder disagrees"),
        ("stabilizer_encoder", "encoder disagrees"),
    ):
        differ = [row[column] != row["stabilizer"] for row in live if row.get(column)]
        if differ:
            seen = next((row.get("activations_on") for row in live if row.get(column)), None)
            on = f", {MEASURED_ON[seen]}" if seen and column == "stabilizer_activations" else ""
            counts.append((words, f"{sum(differ):,} of {len(differ):,}{on}"))
    return counts
