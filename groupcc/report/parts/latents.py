"""Every latent: its row and its card, the orders and filters of the list, and the data that the page's script draws.

The data is compact: each picture is there once, and nothing that the page could not show.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from groupcc.analysis import Atlas
from groupcc.analysis.numbers import number, percent, two_decimals
from groupcc.analysis.part import Note
from groupcc.groups.planar import format_degrees
from groupcc.report.part import ReportPart
from groupcc.report.pictures import element_words, heat_map, telling_elements
from groupcc.report.reader import select_latents
from groupcc.report.svg import LEVELS, level, level_class, ring_rims, ring_sectors

__all__ = ["FILTERS", "FLAGS", "SORTS", "Choice", "Latents", "choices", "clear_latents", "letters", "sorts"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO"
"""One for each step of the colour scale; none needs escaping in HTML or JSON."""

SORTS = {
    "frequency": ("Most often active", "down"),
    "mean_act": ("Strongest when active", "down"),
    "modulation": ("Changes most with the transform", "down"),
    "score": ("Best agreement", "down"),
    "stability": ("Most stable", "down"),
    "contribution": ("Explains most where it fires", "down"),
    "tuning_width_degrees": ("Most sharply tuned", "up"),
    "family_size": ("Largest family", "down"),
    "axis_degrees": ("Mirror line’s angle", "up"),
    "turn_degrees": ("Pose in its family", "up"),
    "decoder_norm": ("Largest decoder", "down"),
    "residual_share": ("Most power not shared by its poses", "down"),
}
"""Columns of the table by which the page offers to sort: words, and which way up."""

FILTERS = {
    "stabilizer": "Stabilizer",
    "chirality": "Mirror image",
    "spare": "Spare",
    "dial": "Orientation dial",
    "scaling": "Blocks in the data",
}
"""Columns of the table with a few values, by which the page offers to choose."""

FLAGS = {
    "undecided": "Undecided",
    "near_miss": "Near miss",
    "broken": "Broken symmetry",
    "duplicate_of": "Learned twice",
}
"""Columns that say something of some latents alone. The page offers to choose these."""

MAX_VALUES = 24
"""Values of a filter; a menu of more is no help."""

DEAD_NAMED = 200
"""Dead latents whose numbers the page lists."""

FAINT = 0.15
"""Share of a latent's power that changes with the transform below which the page says that it is faint."""


@dataclass(frozen=True)
class Choice:
    """A filter: a column, its words, and (value, what it is called, how many latents have it) of each."""

    column: str
    words: str
    values: list[tuple[str, str, int]]
    flag: bool = False


@dataclass(frozen=True)
class Alike:
    """How alike a latent is to itself after one transform."""

    words: str
    value: str
    swatch: str


class Latents(ReportPart):
    """See the module."""

    template = "latents.html"

    def is_faint(self, latent: int) -> bool:
        """Whether a latent that is said to move changes so little that its ring is nearly one colour."""
        return self.reader.kinds[latent] != "invariant" and bool(self.reader.modulation[latent] < FAINT)

    def changes(self, latent: int) -> str:
        """Returns the share of power that changes with the transform."""
        return percent(self.reader.modulation[latent])

    def frequency(self, latent: int) -> str:
        """Returns how often a latent is active; empty without orbits."""
        return "" if self.reader.frequency is None else percent(self.reader.frequency[latent])

    def mean_act(self, latent: int) -> str:
        """Returns a latent's mean activation; empty without orbits."""
        return "" if self.atlas.mean_act is None else number(float(self.atlas.mean_act[latent]))

    def agreement(self, latent: int) -> str:
        """Returns the score of a latent's stabilizer; empty for the identity alone."""
        stabilizer = self.atlas.stabilizers[latent]
        return two_decimals(stabilizer.score) if stabilizer.order > 1 else ""

    def alike(self, latent: int) -> list[Alike]:
        """Returns the autocorrelation at a few elements, and at the best mirror if that is none of them."""
        group, values, axes = self.group, self.reader.correlation[latent], self.reader.axes(latent)
        elements = telling_elements(group, axes[0] if axes else None)
        rows = [(element_words(group, g), values[g]) for g in elements[1:]]
        if group.kind == "dihedral":
            best = group.n + int(np.argmax(values[group.n :]))
            if max(values[g] for g in elements if group.reflections[g]) <= values[best] - 0.05:
                words = f"best mirror tested, at {format_degrees(float(group.axes[best]))}"
                rows.append((words, values[best]))
        return [Alike(words, two_decimals(value), level_class(level(value))) for words, value in rows]

    def notes(self, latent: int) -> list[Note]:
        return self.atlas.notes(latent)

    def worded(self, note: Note) -> str | Markup:
        """Returns a note as the page has it: with a link to the latent that it names."""
        link = Markup('<a href="#latent-{0}">latent {0}</a>')
        return note.text if note.latent is None else Markup.escape(note.text).format(link.format(note.latent))

    def heat_map(self, latent: int) -> str:
        return heat_map(self.atlas.similarity(latent).numpy())

    def norms_label(self, latent: int) -> str:
        """Returns the block norms in words."""
        norms = self.reader.norms[latent]
        return f"Block norms of latent {latent}: mean {number(norms.mean())}, largest {number(norms.max())}"

    def norms_words(self, latent: int) -> str:
        """Returns how much the block norms vary."""
        norms = self.reader.norms[latent]
        top = float(norms.max())
        return f"Weakest block {percent(norms.min() / top)} of the strongest." if top > 0 else "All blocks are zero."

    def dead(self) -> list[int]:
        """Returns the first dead latents."""
        return [latent for latent, kind in enumerate(self.reader.kinds) if kind == "dead"][:DEAD_NAMED]

    def sorts(self) -> list[tuple[str, str]]:
        return sorts(self.reader.table, self.page.ordered)

    def choices(self) -> list[Choice]:
        return choices(self.reader.table, self.page.ordered)

    def data(self) -> Markup:
        """Returns the page's JSON, safe inside a script element; latents in the order of the page."""
        reader, latents, rows = self.reader, self.page.ordered, self.reader.table
        columns = {
            name: [_plain(rows[latent][name]) for latent in latents]
            for name in (rows[0] if rows else {})
            if any(rows[latent][name] is not None for latent in latents)
        }
        # A latent's row before its body, and each after the latent before: pictures are numbered as they are asked for.
        cards = [[_one_line(self.show(slot, latent)) for slot in ("row", "body")] for latent in latents]
        values = {
            "letters": LETTERS,
            "levels": LEVELS,
            "turns": self.group.n,
            "rims": str(ring_rims(self.group)),
            "sectors": ring_sectors(self.group),
            "latents": latents,
            "rings": ["".join(LETTERS[level(float(c)) + LEVELS] for c in reader.correlation[i]) for i in latents],
            "norms": [letters(reader.norms[i], float(reader.norms[i].max(initial=0.0))) for i in latents],
            "spectra": [letters(reader.power[i], float(reader.power[i].max(initial=0.0))) for i in latents],
            "kindWords": {kind.key: kind.title for kind, _ in reader.kind_counts},
            "columns": columns or {"kind": []},
            "rows": [row for row, _ in cards],
            "bodies": [body for _, body in cards],
            "patches": self.page.patches.sources,
        }
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def letters(values: Iterable[float], top: float) -> str:
    """Returns values 0 … `top` as one letter each, for a drawing; 0 for NaN and if `top` is 0."""
    steps = len(LETTERS) - 1
    shares = (float(value) / top if top > 0 and math.isfinite(value) else 0.0 for value in values)
    return "".join(LETTERS[round(steps * min(1.0, max(0.0, share)))] for share in shares)


def clear_latents(atlas: Atlas, limit: int) -> list[int]:
    """Returns at most `limit` latents that are neither undecided nor spare: of every kind in turn, the most often
    active."""
    rows = atlas.table()
    doubtful = [row.get("undecided") is not None or bool(row.get("spare")) for row in rows]
    kinds = ["dead" if doubt else kind for doubt, kind in zip(doubtful, atlas.kinds, strict=True)]
    return select_latents(kinds, None if atlas.frequency is None else atlas.frequency.numpy(), limit)


def sorts(table: Sequence[Mapping[str, Any]], latents: list[int]) -> list[tuple[str, str]]:
    """Returns (value, words) of the orders that tell the latents shown apart."""
    return [
        (f"{name} {way}", words)
        for name, (words, way) in SORTS.items()
        if len({table[latent].get(name) for latent in latents} - {None}) > 1
    ]


def choices(table: Sequence[Mapping[str, Any]], latents: list[int]) -> list[Choice]:
    """Returns the filters that tell the latents shown apart, of at most `MAX_VALUES` values each."""
    offered = []
    for column, words in FILTERS.items():
        counts = Counter(table[latent].get(column) for latent in latents)
        values = sorted((value for value in counts if value is not None), key=_natural)
        if 1 < len(values) <= MAX_VALUES:
            offered.append(Choice(column, words, [(*_option(value), counts[value]) for value in values]))
    for column, words in FLAGS.items():
        marked = sum(table[latent].get(column) is not None for latent in latents)
        if 0 < marked < len(latents):
            counted = [("yes", "yes", marked), ("no", "no", len(latents) - marked)]
            offered.append(Choice(column, words, counted, flag=True))
    return offered


def _option(value: Any) -> tuple[str, str]:
    """Returns a value as JavaScript writes it, and what it is called."""
    return (str(value).lower(), "yes" if value else "no") if value in (True, False) else (str(value), str(value))


def _natural(value: Any) -> tuple[str, int]:
    """Returns a key that sorts D2 before D16."""
    letters, digits = re.fullmatch(r"(.*?)(\d*)", str(value), re.DOTALL).groups()  # type: ignore[union-attr]
    return letters, int(digits or 0)


def _plain(value: Any) -> Any:
    """Returns a table's value as JSON has it, numbers with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def _one_line(text: Any) -> str:
    return re.sub(r"\s*\n\s*", " ", str(text)).strip()
