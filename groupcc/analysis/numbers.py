"""Numbers as text, as the tables' notes and the report write them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["count_noun", "listed", "number", "percent", "shown", "two_decimals"]


def count_noun(n: int, noun: str) -> str:
    """`1 latent`, `1,024 latents`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def number(value: float) -> str:
    """Three significant digits, without an exponent if that is short; an em dash for NaN."""
    value = float(value)
    if not math.isfinite(value):
        return "—" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1000:
        text = f"{value:,.0f}"
    elif size < 1e-3:
        text = f"{value:.2g}"
    else:
        text = f"{value:.{max(0, 2 - math.floor(math.log10(size)))}f}"
        text = text.rstrip("0").rstrip(".") if size >= 1 and "." in text else text
    return text.replace("-", "−")


def two_decimals(value: float) -> str:
    """A cosine or ratio: `0.98`, `−0.34`; an em dash for NaN."""
    return f"{round(float(value), 2) + 0.0:.2f}".replace("-", "−") if math.isfinite(value) else "—"


def percent(value: float) -> str:
    """A share as a percentage: `12 %`, `0.4 %`, `< 0.1 %`."""
    value = 100 * float(value)
    if not math.isfinite(value):
        return "—"
    if 0 < value < 0.1:
        return "< 0.1 %"
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


def shown(value: Any) -> str:
    """Any value of a metrics or provenance table as text (not yet escaped)."""
    if value is None:
        return "—"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return number(float(value))
    if isinstance(value, (list, tuple)):
        return ", ".join(shown(item) for item in value)
    return str(value)
