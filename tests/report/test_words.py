"""The report's words, drawings and choices, each against what the mathematics says."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from groupcc.analysis.numbers import number, percent, shown, two_decimals
from groupcc.groups import group
from groupcc.report import summary
from groupcc.report.guide import guide_group, guide_shapes
from groupcc.report.pictures import element_words, heat_map, telling_elements
from groupcc.report.reader import select_latents
from groupcc.report.svg import LEVELS, bar_paths, level, level_class, ring, scale_css
from groupcc.report.words import family_words, pose_words, shape_hint, stabilizer_words
from helpers.report_samples import shape_atlas


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("C1", ["No turn", "no mirror line"]),
        ("C2", ["180°", "no mirror line"]),
        ("D1@67.5°", ["No turn", "line at 68°"]),
        ("D2@22.5°", ["180°", "lines at 23° and 113°"]),
        ("D4@22.5°", ["90°", "every 45°", "at 23°"]),
        ("D8@11.25°", ["45°", "every 22.5°", "at 11°"]),
        ("D16", ["every turn", "every mirroring"]),
        ("C16", ["every turn", "not mirrored"]),
    ],
)
def test_stabilizer_in_words(label: str, words: list[str]) -> None:
    G = group("D16")
    subgroup = G.subgroup_named(label)
    stabilizer = SimpleNamespace(mask=subgroup.mask, axis=subgroup.axis, kind="any", name=subgroup.name)
    sentence = stabilizer_words(stabilizer, G)
    places = [sentence.find(part) for part in words]
    assert -1 not in places, sentence
    assert places == sorted(places)


def test_interpolated_axis_is_named() -> None:
    G = group("D16")
    subgroup = G.subgroup_named("D2@22.5°")
    stabilizer = SimpleNamespace(mask=subgroup.mask, axis=26.04, kind="180", name="D2")
    assert "at 26° and 116°" in stabilizer_words(stabilizer, G)


def test_pose_is_named_by_the_smallest_turn_of_its_coset() -> None:
    G = group("D16")
    line = G.subgroup_named("D2@0°").mask
    assert pose_words(G, 9, line)[:2] == (1, "+22.5°")
    # m·0° mirrors in the vertical, under which a vertical line is the same.
    assert pose_words(G, G.n, line)[:2] == (0, "0°")
    # m·90° is a quarter turn after that mirror: the line lies.
    assert pose_words(G, G.n + 4, line)[:2] == (4, "+90°")
    chiral = G.subgroup_named("C1").mask
    assert pose_words(G, G.n + 4, chiral)[:2] == (G.n + 4, "mirrored, +90°")
    assert pose_words(G, G.n, chiral)[1] == "mirrored"
    assert pose_words(G, 3, chiral)[2] < pose_words(G, G.n, chiral)[2]


def test_family_in_words() -> None:
    assert "all 8 of its" in family_words(8, 8, 8)
    assert "share" not in family_words(8, 8, 8)
    assert "6 of its 8" in family_words(7, 6, 8)
    assert "1 shares" in family_words(7, 6, 8)
    assert "near-duplicates" in family_words(3, 1, 1)


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ("circle", "circle- or texture-like"),
        ("cross", "cross- or grid-like"),
        ("line", "line-like"),
        ("curve", "curve-like"),
        ("edge", "edge-like"),
        ("spiral", "irregular or spiral-like"),
    ],
)
def test_shape_hint_of_planted_shapes(shape: str, hint: str) -> None:
    atlas = shape_atlas("D16", {shape: 1})
    stabilizer = atlas.stabilizers[0]
    assert shape_hint(stabilizer.kind, atlas.autocorrelation[0].numpy(), atlas.group, stabilizer.name) == hint


def test_summary_counts_kinds_and_families() -> None:
    text = summary(shape_atlas("D16", {"circle": 2, "line": 4, "curve": 5, "spiral": 3}, dead=1))
    lines = text.splitlines()
    assert lines[0].startswith("15 latents under D16 ")
    assert [line.split()[0] for line in lines[1:6]] == ["2", "4", "5", "3", "1"]
    assert re.findall(r"\d+", lines[6]) == ["3", "12", "5"]
    assert "circle- or texture-like" in lines[1]
    assert "never" not in summary(shape_atlas("C1", {"circle": 1})).lower()


def _centroids(markup: str, name: str) -> list[complex]:
    paths = re.findall(rf'<path class="{name}" d="([^"]*)"/>', markup)
    cells = [cell for path in paths for cell in path.split("z") if cell]
    found = []
    for cell in cells:
        numbers = [int(n) for n in re.findall(r"-?\d+", cell)]
        x, y = np.array(numbers).reshape(-1, 2).mean(axis=0)
        found.append(complex(x, -y))
    return found


@pytest.mark.parametrize("name", ["D4", "D5", "D16", "D32"])
def test_ring_puts_turns_and_mirrors_where_they_are(name: str) -> None:
    G = group(name)
    for g in range(G.order):
        values = np.zeros(G.order)
        values[g] = 1.0
        cells = _centroids(str(ring(values, G)), f"a{LEVELS}")
        angles = sorted(math.degrees(math.atan2(c.imag, c.real)) % 360 for c in cells)
        if G.reflections[g]:
            # A point on the mirror line stays where it is. Pixel rows point down.
            expected = sorted([G.axes[g] % 360, G.axes[g] + 180])
            direction = np.array([math.cos(math.radians(angles[0])), -math.sin(math.radians(angles[0]))])
            assert G.matrices[g] @ direction == pytest.approx(direction, abs=0.02)
        else:
            expected = [(90 + math.degrees(G.angles[g])) % 360]
            assert abs(cells[0]) < 345
        assert np.abs((np.array(angles) - expected + 180) % 360 - 180).max() < 1.0


def test_colour_scale_is_symmetric_and_complete() -> None:
    assert [level(v) for v in (-2, -1, 0, 0.5, 1, math.nan)] == [-LEVELS, -LEVELS, 0, LEVELS // 2, LEVELS, 0]
    css = str(scale_css())
    assert all(f".{level_class(step)}{{" in css for step in range(-LEVELS, LEVELS + 1))


def test_heat_map_shows_the_matrix() -> None:
    import base64
    import io

    from PIL import Image

    values = np.array([[1.0, -1.0], [0.0, 0.5]])
    image = Image.open(io.BytesIO(base64.b64decode(heat_map(values).split(",", 1)[1]))).convert("RGBA")
    pixels = np.array(image)
    assert pixels[0, 0].tolist() == [213, 94, 0, 255]
    assert pixels[0, 1].tolist() == [0, 114, 178, 255]
    assert pixels[1, 0, 3] == 0
    assert pixels[1, 1].tolist() == [213, 94, 0, 128]
    assert Image.open(io.BytesIO(base64.b64decode(heat_map(np.ones((300, 300))).split(",", 1)[1]))).size == (128, 128)


def test_bars_are_as_tall_as_their_values() -> None:
    first, second = bar_paths(np.array([1.0, 0.5, 0.0, 0.25]), 3)
    assert re.findall(r"M(\d+) (\d+)h", first) == [("0", "4"), ("8", "54"), ("16", "104")]
    assert re.findall(r"M(\d+) (\d+)h", second) == [("32", "79")]


def test_telling_elements_and_their_names() -> None:
    G = group("D16")
    chosen = telling_elements(G, 67.0)
    assert [element_words(G, g) for g in chosen] == [
        "upright",
        "turned 45°",
        "turned 90°",
        "turned 180°",
        "mirrored left–right",
        "mirrored at 67.5°",
    ]
    assert telling_elements(group("C1"), None) == [0]
    assert telling_elements(group("D1"), 90.0) == [0, 1]
    # An axis just below 180° is next to the horizontal one.
    assert element_words(G, telling_elements(G, 179.0)[-1]) == "mirrored top–bottom"


def test_every_kind_gets_a_card_under_the_cap() -> None:
    kinds = ["180"] * 50 + ["mirror"] * 3 + ["dead"] * 4 + ["invariant"]
    frequency = np.arange(58) / 58
    assert select_latents(kinds, frequency, 5) == [48, 49, 51, 52, 57]
    assert select_latents(kinds, None, 3) == [0, 50, 57]
    assert len(select_latents(kinds, None, 100)) == 54


def test_guide_needs_quarter_turns() -> None:
    assert guide_group(group("D32")).name == "D32"
    assert guide_group(group("D6")).name == "D16"
    assert guide_group(group("C3")).name == "C16"
    assert len(guide_shapes(group("D16"))) == 6
    assert len(guide_shapes(group("C16"))) == 5


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1034, "0.103"),
        (8.0, "8"),
        (0, "0"),
        (12345.6, "12,346"),
        (-0.5, "−0.500"),
        (2.5e-5, "2.5e−05"),
        (math.nan, "—"),
    ],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_other_formats() -> None:
    assert [percent(v) for v in (0, 0.0004, 0.055, 0.5, math.nan)] == ["0 %", "< 0.1 %", "5.5 %", "50 %", "—"]
    assert [two_decimals(v) for v in (0.98, -0.001, -0.338, math.nan)] == ["0.98", "0.00", "−0.34", "—"]
    assert [shown(v) for v in (None, True, 1234, [1, 2], "x")] == ["—", "yes", "1,234", "1, 2", "x"]
