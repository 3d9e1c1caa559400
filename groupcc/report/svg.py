"""Inline SVG: rings, dials, bars and the colour scale they share. Everything returned is safe markup."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from markupsafe import Markup, escape

from groupcc.analysis import Dial
from groupcc.analysis.numbers import number
from groupcc.groups import PlanarGroup

__all__ = [
    "LEVELS",
    "NEGATIVE",
    "POSITIVE",
    "bar_paths",
    "block_plot",
    "dial",
    "dial_cells",
    "level",
    "pose_dial",
    "pose_dial_figure",
    "ring",
    "ring_figure",
    "ring_rims",
    "ring_sectors",
    "scale_css",
]

LEVELS = 20
"""Steps of the colour scale on either side of 0."""

POSITIVE = (213, 94, 0)
"""Colour of +1 (vermilion) and of −1 below (blue): apart for every common colour blindness (Okabe and Ito 2008)."""

NEGATIVE = (0, 114, 178)


def level(value: float) -> int:
    """Returns a value in −1 … 1 as a step of the colour scale, −LEVELS … LEVELS; NaN (no value) is 0."""
    if not math.isfinite(value):
        return 0
    return round(max(-1.0, min(1.0, float(value))) * LEVELS)


def level_class(step: int) -> str:
    """Returns the CSS class of a step: `a7` for +7, `b7` for −7."""
    return f"a{step}" if step >= 0 else f"b{-step}"


def scale_css() -> Markup:
    """Returns the CSS of the scale: one hue a sign, opacity proportional to |value|; 0 is the page's own background.

    The same rules serve the light and the dark page.
    """
    rules = [".a0{fill:transparent;background:transparent}"]
    for step in range(1, LEVELS + 1):
        alpha = f"{step / LEVELS:.2f}".lstrip("0")
        for letter, colour in (("a", POSITIVE), ("b", NEGATIVE)):
            rgba = f"rgba({','.join(map(str, colour))},{alpha})"
            rules.append(f".{letter}{step}{{fill:{rgba};background:{rgba}}}")
    return Markup("".join(rules))


def _sector(inner: float, outer: float, centre: float, width: float) -> str:
    """Returns a ring sector as a closed path; angles in degrees counter-clockwise from the right as seen."""
    pieces = max(1, math.ceil(width / 6))
    angles = np.radians(centre - width / 2 + width * np.arange(pieces + 1) / pieces)
    outside = [(outer * math.cos(a), -outer * math.sin(a)) for a in angles]
    inside = [(inner * math.cos(a), -inner * math.sin(a)) for a in angles[::-1]]
    points = [f"{round(x)} {round(y)}" for x, y in outside + inside]
    return f"M{'L'.join(points)}z"


def _cells(sectors: Iterable[tuple[str, str]]) -> Markup:
    """Returns sectors (class, path) as one `path` for each class."""
    by_class: dict[str, list[str]] = defaultdict(list)
    for name, path in sectors:
        by_class[name].append(path)
    return Markup("").join(Markup('<path class="{}" d="{}"/>').format(n, "".join(p)) for n, p in by_class.items())


def _radii(group: PlanarGroup) -> tuple[tuple[float, float], tuple[float, float]]:
    if group.kind == "cyclic":
        return (230, 420), (0, 0)
    return (190, 320), (345, 470)


def ring_rims(group: PlanarGroup) -> Markup:
    """Returns the outlines of a ring's bands."""
    radii = [radius for band in _radii(group) for radius in band if radius]
    return Markup("").join(Markup('<circle class="rim" r="{}"/>').format(int(radius)) for radius in radii)


def ring_sectors(group: PlanarGroup) -> list[str]:
    """Returns the path of each element's cell in a ring, both ends of its mirror line for a reflection."""
    (low, high), (outer_low, outer_high) = _radii(group)
    gap = 0.94 if group.n <= 32 else 1.0
    paths = []
    for g in range(group.order):
        if not group.reflections[g]:
            paths.append(_sector(low, high, 90 + math.degrees(group.angles[g]), gap * 360 / group.n))
        else:
            ends = (_sector(outer_low, outer_high, group.axes[g] + end, gap * 180 / group.n) for end in (0, 180))
            paths.append("".join(ends))
    return paths


def ring(values_G: np.ndarray, group: PlanarGroup) -> Markup:
    """Returns the 2n-gon of a function on the group, as shapes in a box of −500 … 500.

    Inner ring: the rotation by θ at θ counter-clockwise from the top. Outer ring: each reflection at both ends of
    its mirror line, as that line lies in the image. Values −1 … 1 on the shared colour scale.
    """
    names = [level_class(level(float(value))) for value in values_G]
    return ring_rims(group) + _cells(zip(names, ring_sectors(group), strict=True))


def ring_figure(
    cells: Markup,
    group: PlanarGroup,
    label: str,
    axes: Sequence[float] = (),
    *,
    large: bool = False,
    badges: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Returns a ring as an image for readers and for screen readers.

    `axes` (degrees) draws mirror lines across it; `badges` puts the numbers 1, 2, … at (radius, degrees
    counter-clockwise from the right). A large ring names the quarter turns outside.
    """
    lines = Markup("").join(
        Markup('<path class="axis" d="M{} {}L{} {}"/>').format(
            *(round(s * 160 * f) for s in (1, -1) for f in (math.cos(math.radians(a)), -math.sin(math.radians(a))))
        )
        for a in axes
    )
    marks = Markup("")
    if large:
        _, outer = _radii(group)
        edge = (outer[1] or 420) + 24
        places = (
            ("no turn", 0, -edge),
            ("¼ turn", -edge - 92, 16),
            ("½ turn", 0, edge + 42),
            ("¾ turn", edge + 92, 16),
        )
        marks = Markup("").join(Markup('<text x="{}" y="{}">{}</text>').format(x, y, words) for words, x, y in places)
    for count, (radius, degrees) in enumerate(badges, start=1):
        x, y = round(radius * math.cos(math.radians(degrees))), round(-radius * math.sin(math.radians(degrees)))
        badge = Markup('<circle class="badge" cx="{}" cy="{}" r="42"/><text class="badge" x="{}" y="{}">{}</text>')
        marks += badge.format(x, y, x, y + 20, count)
    box = "-690 -560 1380 1120" if large else "-490 -490 980 980"
    return Markup('<svg class="ring{}" viewBox="{}" role="img" aria-label="{}">{}{}{}</svg>').format(
        " large" if large else "", box, label, cells, lines, marks
    )


def dial_cells(occupied_G: np.ndarray, group: PlanarGroup, *, mirrored: bool) -> Markup:
    """Returns the cells of `dial`, in a box of −500 … 500."""
    sectors = []
    for g in range(group.order):
        if group.reflections[g] and not mirrored:
            continue
        low, high = (360, 470) if group.reflections[g] else (200, 330)
        path = _sector(low, high, 90 + math.degrees(group.angles[g]), 0.8 * 360 / group.n)
        sectors.append(("on" if occupied_G[g] else "off", path))
    return _cells(sectors)


def dial(cells: Markup, label: str, *, mirrored: bool) -> Markup:
    """Returns a family's poses: the turn by θ at θ counter-clockwise from the top, mirrored poses outside."""
    reach = 490 if mirrored else 350
    hand = Markup('<path class="hand" d="M0 150L0 -150M-50 -90L0 -150L50 -90"/>')
    return Markup('<svg class="dial" viewBox="{} {} {} {}" role="img" aria-label="{}">{}{}</svg>').format(
        -reach, -reach, 2 * reach, 2 * reach, label, cells, hand
    )


def pose_dial(dial: Dial, group: PlanarGroup) -> Markup:
    """Returns how often a latent fired in each pose, as shapes in a box of −500 … 500.

    The turn by θ lies at θ counter-clockwise from the top, mirrored poses outside. Each bar is as long as its count:
    the longest of both rings fills its track. A dashed circle, on a plain one so that it is seen, lies at the mean. A
    pose that equals others of its ring is drawn at each. Gaps have an empty track of their own and a rim.
    """
    bands = [(120, 485)] if dial.mirrored is None else [(120, 285), (315, 480)]
    top = max(1, *(int(ring.counts.max()) for ring in dial.rings))
    mean = dial.firings / dial.n_poses / top
    sectors, circles = [], Markup("")
    width = 360 / group.n
    for (low, high), ring, bar in zip(bands, dial.rings, ("turn", "mirror"), strict=False):
        for r in range(group.n):
            i, angle = r % len(ring.counts), 90 + math.degrees(group.angles[r])
            sectors.append(("void" if ring.gaps[i] else "track", _sector(low, high, angle, 0.86 * width)))
            if ring.counts[i]:
                sectors.append((bar, _sector(low, low + (high - low) * int(ring.counts[i]) / top, angle, 0.86 * width)))
            if ring.gaps[i]:
                sectors.append(("gap", _sector(high + 3, high + 17, angle, width)))
        circles += Markup('<circle class="under" r="{0}"/><circle class="mean" r="{0}"/>').format(
            round(low + (high - low) * mean)
        )
    return _cells(sorted(sectors, key=lambda sector: sector[0] not in ("track", "void"))) + circles


def pose_dial_figure(cells: Markup, label: str, *, large: bool = False) -> Markup:
    """Returns the shapes of `pose_dial` as an image; a large one names angles."""
    hand = Markup('<path class="hand" d="M0 85L0 -85M-34 -46L0 -85L34 -46"/>')
    places = (("0°", 0, -522), ("90°", -560, 16), ("180°", 0, 556), ("270°", 570, 16)) if large else ()
    marks = Markup("").join(Markup('<text x="{}" y="{}">{}</text>').format(x, y, words) for words, x, y in places)
    box = "-640 -580 1280 1160" if large else "-505 -505 1010 1010"
    return Markup('<svg class="poses{}" viewBox="{}" role="img" aria-label="{}">{}{}{}</svg>').format(
        " large" if large else "", box, label, cells, hand, marks
    )


def bar_paths(heights: np.ndarray, gap: int) -> tuple[str, str]:
    """Returns bars of heights 0 … 1 as two paths, 8 wide each and 100 high on a base at 104.

    The first path holds the bars before bar `gap`, the second the others, one bar's width further.
    """
    paths = ["", ""]
    for i, height in enumerate(heights):
        second = int(i >= gap)
        paths[second] += f"M{8 * (i + second)} {104 - round(100 * float(height))}h6V104h-6z"
    return paths[0], paths[1]


def block_plot(values_G: Sequence[float], group: PlanarGroup, label: str) -> Markup:
    """Returns a value for each block as labelled bars from 0 (FVU in the metrics section)."""
    values = [float(v) if math.isfinite(float(v)) else 0.0 for v in values_G]
    left, bottom, height = 46, 168, 140
    step = max(4.0, min(26.0, 700 / max(1, len(values) + 1)))
    limit = _round_up(max(values, default=0.0))
    width = left + step * (len(values) + 1) + 8
    parts = [
        Markup('<path class="grid" d="M{} {:.1f}H{:.0f}"/>').format(left, bottom - height * f, width) for f in (0.5, 1)
    ]
    for fraction in (0, 0.5, 1):
        y = bottom - height * fraction + 4
        parts.append(
            Markup('<text class="end" x="{}" y="{:.1f}">{}</text>').format(left - 6, y, number(limit * fraction))
        )
    for g, value in enumerate(values):
        mirrored = bool(group.reflections[g])
        x = left + step * (g + (1 if mirrored else 0)) + 1
        tall = height * value / limit
        parts.append(
            Markup(
                '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"><title>{}</title></rect>'
            ).format(
                "mirror" if mirrored else "turn",
                x,
                bottom - tall,
                step - 2,
                tall,
                f"{group.element_names[g]}: {number(value)}",
            )
        )
        if int(g % group.n) % max(1, group.n // 4) == 0:
            degrees = round(math.degrees(group.angles[g]))
            name = f"{degrees}°"
            parts.append(Markup('<text x="{:.1f}" y="{}">{}</text>').format(x + step / 2 - 1, bottom + 16, name))
    halves = [("turned by", 0)] + ([("mirrored, then turned by", group.n + 1)] if group.kind == "dihedral" else [])
    for text, offset in halves:
        x = left + step * (offset + group.n / 2)
        parts.append(Markup('<text class="half" x="{:.1f}" y="{}">{}</text>').format(x, bottom + 36, escape(text)))
    parts.append(Markup('<path class="base" d="M{} {}H{:.0f}"/>').format(left, bottom, width))
    return Markup(
        '<svg class="plot" viewBox="0 0 {:.0f} 212" width="{:.0f}" role="img" aria-label="{}">{}</svg>'
    ).format(width, width, label, Markup("").join(parts))


def _round_up(value: float) -> float:
    """Returns the next round number: a limit for an axis from 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(f * power for f in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if f * power >= value * (1 - 1e-9))
