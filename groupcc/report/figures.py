"""Figures for a paper: the report's drawings as SVG or PDF files that stand alone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from groupcc.analysis import Atlas
from groupcc.analysis.numbers import count_noun, percent, two_decimals
from groupcc.errors import argument_error, check_choice, is_whole
from groupcc.files import atomic_write
from groupcc.report.family_views import FamilyView, family_views
from groupcc.report.pictures import PatchBook, heat_map
from groupcc.report.reader import Reader
from groupcc.report.svg import LEVELS, NEGATIVE, POSITIVE, bar_paths, ring

__all__ = ["FIGURES", "write_figure"]

KIND_COLOURS = {
    "invariant": "invariant",
    "90": "quarter",
    "180": "half",
    "other-rotation": "other",
    "mirror": "one",
    "none": "chiral",
    "undecided": "undecided",
    "dead": "dead",
}
"""The page's name for each kind's colour."""


def write_figure(
    atlas: Atlas, path: str | Path, what: str = "kinds", *, latent: int | None = None, limit: int = 12
) -> Path:
    """Writes one figure to `path`, as SVG or PDF by its suffix, in one rename; text stays text.

    Args:
        atlas: what `groupcc.analyze` returns.
        path: ends in .svg or .pdf; for PDF `svglib` is needed (`pip install 'groupcc[pdf]'`).
        what: "kinds" (how many latents have each symmetry), "spectrum" (power by repeats in a full turn, for each
            kind its latents' mean), "families" (the `limit` largest: ring of the reference, orientations covered), or
            "latent" (ring, block map, block norms and spectrum of `latent`).
        latent: index of the latent for "latent", which no other figure takes.
        limit: families drawn.

    Raises:
        ArgumentError: an unknown figure or suffix; a latent that the atlas lacks; svglib not installed.
    """
    path = Path(path)
    check_choice("what", what, FIGURES, "Choose one of them.")
    if path.suffix.lower() not in (".svg", ".pdf"):
        raise argument_error("path", expected="a name that ends in .svg or .pdf", got=str(path), remedy="Rename it.")
    if (latent is None) == (what == "latent") or (latent is not None and not is_whole(latent, 0)):
        expected = "the index of a latent" if what == "latent" else f"None for the figure {what!r}"
        raise argument_error("latent", expected=expected, got=latent, remedy="Only the figure 'latent' is of one.")
    if latent is not None and latent >= atlas.n_latents:
        expected = f"less than {atlas.n_latents}, the atlas's number of latents"
        raise argument_error("latent", expected=expected, got=latent, remedy="Count from 0.")
    if not is_whole(limit, 1):
        raise argument_error("limit", expected="a whole number, at least 1", got=limit, remedy="Leave it out for 12.")
    if path.suffix.lower() == ".pdf" and find_spec("svglib") is None:
        remedy = "pip install 'groupcc[pdf]', or write .svg, which any vector editor turns into PDF."
        raise argument_error("path", expected="svglib to be installed for .pdf", got="no such package", remedy=remedy)
    svg = FIGURES[what](Reader(atlas), limit if latent is None else latent)
    atomic_write(path, _pdf(svg) if path.suffix.lower() == ".pdf" else svg.encode("utf-8"))
    return path


def _pdf(svg: str) -> bytes:
    from reportlab.graphics import renderPDF
    from reportlab.pdfgen.canvas import Canvas
    from svglib.svglib import svg2rlg

    drawing: Any = svg2rlg(io.BytesIO(svg.encode("utf-8")))
    page = io.BytesIO()
    # invariant: else the time and a random name make equal figures differ.
    canvas = Canvas(page, pagesize=(drawing.width, drawing.height), invariant=1)
    renderPDF.draw(drawing, canvas, 0, 0)
    canvas.save()
    return page.getvalue()


def _colours() -> dict[str, str]:
    """Returns the page's light colours by name."""
    css = files("groupcc.report").joinpath("assets").joinpath("base.css").read_text(encoding="utf-8")
    return dict(re.findall(r"--(\w+): light-dark\((#\w{6})", css))


def _style() -> str:
    colours = _colours()
    rules = [
        "text{font-family:Helvetica,Arial,sans-serif;font-size:11px;fill:#1d2228}",
        ".soft{fill:#59626c}.end{text-anchor:end}.middle{text-anchor:middle}.bold{font-weight:bold}",
        f".rim{{fill:none;stroke:{colours['rule']};stroke-width:6}}.axis{{stroke:#1d2228;stroke-width:14;fill:none}}",
        f".turn{{fill:{colours['turn']}}}.mirror{{fill:{colours['mirror']}}}.off{{fill:{colours['mute']}}}",
        f".base{{stroke:{colours['soft']};fill:none}}.a0{{fill:none}}",
        *(f".k-{kind}{{fill:{colours[name]}}}" for kind, name in KIND_COLOURS.items()),
    ]
    for letter, colour in (("a", POSITIVE), ("b", NEGATIVE)):
        for step in range(1, LEVELS + 1):
            # Mixed with white: not every reader of SVG or PDF knows opacity.
            mixed = (round(255 + (c - 255) * step / LEVELS) for c in colour)
            rules.append(f".{letter}{step}{{fill:#{''.join(f'{c:02x}' for c in mixed)}}}")
    return "".join(rules)


def _figure(width: float, height: float, title: str, *parts: Markup) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"><title>{escape(title)}</title>'
        f"<style>{_style()}</style>{''.join(parts)}</svg>\n"
    )


def _text(x: float, y: float, words: str, style: str = "") -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" class="{}">{}</text>').format(x, y, style, words)


def _placed(cells: Markup, x: float, y: float, size: float) -> Markup:
    """Returns shapes in a box of −500 … 500 as they are in a square of `size` with its corner at (x, y)."""
    return Markup('<g transform="translate({:.2f} {:.2f}) scale({:.5f})">{}</g>').format(
        x + size / 2, y + size / 2, size / 1000, cells
    )


def _chart(values: np.ndarray, style: str | None, x: float, y: float, width: float, height: float, gap: int) -> Markup:
    """Returns bars from 0 to the largest value. Those from bar `gap` on are a second group, if `style` is None."""
    top = float(values.max(initial=0.0)) or 1.0
    count = len(values) + (gap < len(values))
    paths = zip(("turn", "mirror"), bar_paths(values / top, gap), strict=True)
    bars = Markup("").join(
        Markup('<path class="{}" d="{}"/>').format(style or name, path) for name, path in paths if path
    )
    return Markup(
        '<g transform="translate({:.2f} {:.2f}) scale({:.5f} {:.5f})">{}<path class="base" d="M0 104.5H{}"/></g>'
    ).format(x, y, width / (8 * count), height / 106, bars, 8 * count)


def _kinds(reader: Reader, _: int) -> str:
    kinds = reader.kind_counts
    most = max(n for _, n in kinds) or 1
    live = sum(n for kind, n in kinds if kind.key != "dead")
    parts = []
    for row, (kind, n) in enumerate(kinds):
        y = 12 + 26 * row
        parts.append(_text(210, y + 13, kind.title, "end"))
        bar = Markup('<rect class="k-{}" x="220" y="{}" width="{:.1f}" height="18"/>')
        parts.append(bar.format(kind.key, y, 240 * n / most))
        share = "" if kind.key == "dead" or not live else f" ({percent(n / live)})"
        parts.append(_text(226 + 240 * n / most, y + 13, f"{n:,}{share}"))
    title = f"{count_noun(len(reader.kinds), 'latent')} under {reader.group.name} by kind of symmetry"
    return _figure(560, 20 + 26 * len(kinds), title, *parts)


def _spectrum(reader: Reader, _: int) -> str:
    kinds = [(kind, n) for kind, n in reader.kind_counts if n and kind.key != "dead"]
    parts = []
    n_frequencies = reader.power.shape[1]
    for row, (kind, n) in enumerate(kinds):
        y = 10 + 74 * row
        mean = reader.power[[k == kind.key for k in reader.kinds]].mean(0)
        parts.append(_text(210, y + 30, kind.title, "end bold"))
        parts.append(_text(210, y + 45, f"{count_noun(n, 'latent')}, at most {percent(mean.max())}", "end soft"))
        parts.append(_chart(mean, f"k-{kind.key}", 220, y, 320, 60, n_frequencies))
    bottom = 10 + 74 * len(kinds)
    for k in range(n_frequencies):
        parts.append(_text(220 + 320 * (k + 0.4) / n_frequencies, bottom + 4, str(k), "middle soft"))
    parts.append(_text(380, bottom + 20, "repeats in a full turn", "middle soft"))
    return _figure(560, bottom + 28, "Mean share of power by angular frequency, for each kind of symmetry", *parts)


def _families(reader: Reader, limit: int) -> str:
    families = family_views(reader, PatchBook(reader.atlas, None), limit=limit, max_members=1)
    columns, width, height = 2, 310, 124
    parts = []
    for i, family in enumerate(families):
        parts += _family(reader, family, 10 + width * (i % columns), 10 + height * (i // columns))
    rows = -(-len(families) // columns)
    legend = "ring: how alike the reference is to itself after each transform; dial: orientations that have a latent"
    parts.append(_text(10, 22 + height * rows, legend, "soft"))
    return _figure(20 + width * columns, 32 + height * rows, "Largest families of copies of one pattern", *parts)


def _family(reader: Reader, family: FamilyView, x: float, y: float) -> list[Markup]:
    ring_cells = _placed(ring(reader.correlation[family.reference], reader.group), x, y + 32, 80)
    parts = [
        _text(x, y + 12, f"Family {family.family}: {family.hint}", "bold"),
        _text(x, y + 26, family.sentence.split(";")[0].rstrip("."), "soft"),
        ring_cells,
    ]
    if family.dial_cells is not None:
        on = str(family.dial_cells).replace('class="on"', f'class="k-{family.kind.key}"')
        parts.append(_placed(Markup(on), x + 90, y + 32, 80))
    return parts


def _latent(reader: Reader, latent: int) -> str:
    group, stabilizer = reader.group, reader.atlas.stabilizers[latent]
    parts = [
        _text(10, 18, f"Latent {latent}: {reader.hint(latent)}", "bold"),
        _text(10, 34, f"{stabilizer.label}. {reader.sentence(latent)}", "soft"),
        _placed(ring(reader.correlation[latent], group), 10, 46, 170),
        _text(95, 230, "autocorrelation over the group", "middle soft"),
        Markup('<rect x="200" y="54" width="150" height="150" style="fill:none;stroke:#e3e0d8"/>'),
        Markup('<image x="200" y="54" width="150" height="150" xlink:href="{}"/>').format(
            heat_map(reader.atlas.similarity(latent).numpy(), see_through=False)
        ),
        _text(275, 230, "cosine of every two blocks", "middle soft"),
        _chart(reader.norms[latent], None, 375, 54, 190, 55, group.n),
        _text(470, 124, f"block norms, at most {two_decimals(reader.norms[latent].max(initial=0.0))}", "middle soft"),
        _chart(reader.power[latent], "turn", 375, 138, 190, 55, reader.power.shape[1]),
        _text(470, 210, f"spectrum, repeats in a turn 0 … {group.n // 2},", "middle soft"),
        _text(470, 224, f"at most {percent(reader.power[latent].max())}", "middle soft"),
    ]
    return _figure(580, 240, f"Latent {latent}", *parts)


FIGURES: dict[str, Callable[[Reader, int], str]] = {
    "kinds": _kinds,
    "spectrum": _spectrum,
    "families": _families,
    "latent": _latent,
}
"""The figures by name."""
