"""The data that the page's script draws latents from: compact, each picture once, nothing that it could not show."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from groupcc.analysis.numbers import array
from groupcc.report.svg import LEVELS, level, ring_rims, ring_sectors
from groupcc.report.views import LatentView, Reader, select_latents
from groupcc.report.words import KIND_KEYS

__all__ = ["FILTERS", "SORTS", "Choice", "choices", "clear_latents", "data_block", "letters", "page_order", "sorts"]

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNO"
"""One for each step of the colour scale; none needs escaping in HTML or JSON."""

SORTS = {
    "frequency": ("Most often active", "down"),
    "mean_act": ("Strongest when active", "down"),
    "modulation": ("Changes most with the transform", "down"),
    "score": ("Best agreement", "down"),
    "confidence": ("Most confident", "down"),
    "contribution": ("Explains most where it fires", "down"),
    "tuning_width_degrees": ("Most sharply tuned", "up"),
    "family_size": ("Largest family", "down"),
    "axis_degrees": ("Mirror line’s angle", "up"),
    "turn_degrees": ("Pose in its family", "up"),
    "decoder_norm": ("Largest decoder", "down"),
    "residual_share": ("Most power not shared by its poses", "down"),
}
"""Columns of the table that the page offers to sort by: words, and which way up."""

FILTERS = {
    "stabilizer": "Stabilizer",
    "chirality": "Mirror image",
    "spare": "Spare",
    "dial": "Orientation dial",
    "scaling": "Blocks in the data",
}
"""Columns of the table with a few values that the page offers to choose by."""

FLAGS = {"unclear": "Unclear", "near_miss": "Near miss", "broken": "Broken symmetry", "duplicate_of": "Learned twice"}
"""Columns that say something of some latents alone, which the page offers to choose."""

MAX_VALUES = 24
"""Values of a filter; a menu of more is no help."""


@dataclass(frozen=True)
class Choice:
    """A filter: a column, its words, and (value, what it is called, how many latents have it) of each."""

    column: str
    words: str
    values: list[tuple[str, str, int]]
    flag: bool = False


def letters(values: Iterable[float], top: float) -> str:
    """Values 0 … `top` as one letter each, for a drawing; 0 for NaN and where `top` is 0."""
    steps = len(LETTERS) - 1
    shares = (float(value) / top if top > 0 and math.isfinite(value) else 0.0 for value in values)
    return "".join(LETTERS[round(steps * min(1.0, max(0.0, share)))] for share in shares)


def data_block(
    environment: Environment,
    reader: Reader,
    views: list[LatentView],
    kind_words: dict[str, str],
    context: dict[str, Any],
) -> Markup:
    """The page's JSON, safe inside a script element; `views` in page order."""
    macros = environment.get_template("parts.html").make_module(context)
    latents = [view.latent for view in views]
    rows = reader.table
    columns = {
        name: [_plain(rows[latent][name]) for latent in latents]
        for name in (rows[0] if rows else {})
        if any(rows[latent][name] is not None for latent in latents)
    }
    values = {
        "letters": LETTERS,
        "levels": LEVELS,
        "turns": reader.group.n,
        "rims": str(ring_rims(reader.group)),
        "sectors": ring_sectors(reader.group),
        "latents": latents,
        "rings": ["".join(LETTERS[level(float(c)) + LEVELS] for c in reader.correlation[i]) for i in latents],
        "norms": [letters(reader.norms[i], float(reader.norms[i].max(initial=0.0))) for i in latents],
        "spectra": [letters(reader.power[i], float(reader.power[i].max(initial=0.0))) for i in latents],
        "kindWords": kind_words,
        "columns": columns or {"kind": []},
        "rows": [_one_line(macros.latent_row(view)) for view in views],  # type: ignore[attr-defined]
        "bodies": [_one_line(macros.latent_body(view)) for view in views],  # type: ignore[attr-defined]
        "patches": reader.patches.sources,
    }
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c").replace("&", "\\u0026"))


def page_order(reader: Reader) -> list[int]:
    """Every live latent, kind by kind. The clearest come first: those that change most, of the invariant ones least."""
    order = {key: place for place, key in enumerate(KIND_KEYS)}
    live = [latent for latent, kind in enumerate(reader.kinds) if kind != "dead"]

    def clearest(latent: int) -> tuple[int, float]:
        change = 0.0 if reader.modulation is None else float(reader.modulation[latent])
        kind = reader.kinds[latent]
        return order.get(kind, len(order)), change if kind == "invariant" else -change

    return sorted(live, key=clearest)


def clear_latents(atlas: Any, limit: int) -> list[int]:
    """At most `limit` latents that are neither unclear nor spare: of every kind in turn, the most often active."""
    rows = atlas.table()
    unclear = [row.get("unclear") is not None or bool(row.get("spare")) for row in rows]
    kinds = ["dead" if doubtful else str(kind) for doubtful, kind in zip(unclear, atlas.kinds, strict=True)]
    return select_latents(kinds, None if atlas.frequency is None else array(atlas.frequency), limit)


def sorts(table: list[dict[str, Any]], latents: list[int]) -> list[tuple[str, str]]:
    """(value, words) of the orders that tell the latents shown apart."""
    found = []
    for name, (words, way) in SORTS.items():
        if len({table[latent].get(name) for latent in latents} - {None}) > 1:
            found.append((f"{name} {way}", words))
    return found


def choices(table: list[dict[str, Any]], latents: list[int]) -> list[Choice]:
    """The filters that tell the latents shown apart, of at most `MAX_VALUES` values each."""
    found = []
    for column, words in FILTERS.items():
        counts = Counter(table[latent].get(column) for latent in latents)
        values = sorted((value for value in counts if value is not None), key=_natural)
        if 1 < len(values) <= MAX_VALUES:
            # As JavaScript writes them.
            named = [
                (str(value).lower(), "yes" if value else "no") if value in (True, False) else (str(value),) * 2
                for value in values
            ]
            found.append(
                Choice(column, words, [(*names, counts[value]) for names, value in zip(named, values, strict=True)])
            )
    for column, words in FLAGS.items():
        told = sum(table[latent].get(column) is not None for latent in latents)
        if 0 < told < len(latents):
            found.append(Choice(column, words, [("yes", "yes", told), ("no", "no", len(latents) - told)], flag=True))
    return found


def _natural(value: Any) -> tuple[str, int]:
    """D2 before D16."""
    letters, digits = re.fullmatch(r"(.*?)(\d*)", str(value), re.DOTALL).groups()  # type: ignore[union-attr]
    return letters, int(digits or 0)


def _plain(value: Any) -> Any:
    """A table's value as JSON has it, numbers with four digits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def _one_line(text: Any) -> str:
    return re.sub(r"\s*\n\s*", " ", str(text)).strip()
