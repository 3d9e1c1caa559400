"""Figures for a paper and the table as a DataFrame."""

from __future__ import annotations

import importlib.util
import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from groupcc.errors import ArgumentError
from groupcc.report.figures import FIGURES
from groupcc.report.words import kind_of
from helpers.report_samples import shape_atlas, tied_atlas

NAME = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def atlas():
    return shape_atlas("D8", {"circle": 2, "line": 4, "curve": 6, "spiral": 5}, dead=1)


def options(what: str) -> dict[str, int]:
    return {"latent": 3} if what == "latent" else {}


def texts(path: Path) -> list[str]:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for text in root.iter(f"{NAME}text"):
        assert 0 <= float(text.attrib["x"]) <= width
        assert 0 <= float(text.attrib["y"]) <= height
    return ["".join(text.itertext()) for text in root.iter(f"{NAME}text")]


@pytest.mark.parametrize("what", FIGURES)
def test_each_figure_is_an_image_that_stands_alone(what: str, atlas, tmp_path: Path) -> None:
    path = atlas.figure(tmp_path / "f.svg", what, **options(what))
    assert texts(path)
    text = path.read_text(encoding="utf-8")
    assert "data-" not in text.replace("data:image/png", "")
    links = re.findall(r'href="([^"]{0,22})', text)
    assert all(link == "data:image/png;base64," for link in links)
    styled = set(re.findall(r"\.([\w-]+)(?=[{.])", text.split("<style>")[1].split("</style>")[0]))
    used = {name for names in re.findall(r'class="([^"]*)"', text) for name in names.split()}
    assert used <= styled, used - styled
    assert atlas.figure(tmp_path / "again.svg", what, **options(what)).read_bytes() == path.read_bytes()


def test_kinds_are_counted(atlas, tmp_path: Path) -> None:
    path = atlas.figure(tmp_path / "f.svg")
    said = texts(path)
    assert said[said.index(kind_of("invariant", atlas.group).title) + 1] == "2 (12 %)"
    assert said[said.index(kind_of("mirror", atlas.group).title) + 1] == "6 (35 %)"
    assert said[said.index(kind_of("dead", atlas.group).title) + 1] == "1"
    widths = [float(rect.attrib["width"]) for rect in ET.fromstring(path.read_text()).iter(f"{NAME}rect")]
    assert max(widths) / widths[0] == pytest.approx(3)


def test_spectrum_is_the_mean_of_each_kind(atlas, tmp_path: Path) -> None:
    said = texts(atlas.figure(tmp_path / "f.svg", "spectrum"))
    assert said[said.index(kind_of("180", atlas.group).title) + 1] == "4 latents, at most 60 %"
    assert said[said.index(kind_of("invariant", atlas.group).title) + 1] == "2 latents, at most 100 %"
    assert said[-6:-1] == ["0", "1", "2", "3", "4"]


def test_families_are_the_largest(atlas, tmp_path: Path) -> None:
    assert atlas.families.sizes[:2] == [6, 5]
    path = atlas.figure(tmp_path / "f.svg", "families", limit=2)
    said = texts(path)
    assert said[0] == "Family 0: curve-like"
    assert "6 of its 8" in said[1]
    assert said[2].startswith("Family 1: ")
    text = path.read_text(encoding="utf-8")
    # Cells of the dial: six orientations of the curve (no mirrored ring), five of the spiral's sixteen.
    cells = [len(re.findall("M", d)) for d in re.findall(r'<path class="k-(?:mirror|undecided)" d="([^"]*)"', text)]
    assert cells == [12, 5] or cells == [6, 5]


@pytest.mark.parametrize(("what", "width"), [("spectrum", 320), ("latent", 190)])
def test_charts_fill_their_place(what: str, width: float, atlas, tmp_path: Path) -> None:
    text = atlas.figure(tmp_path / "f.svg", what, **options(what)).read_text(encoding="utf-8")
    charts = re.findall(r'scale\(([\d.]+) [\d.]+\)">((?:(?!<g ).)*?)<path class="base" d="M0 104.5H(\d+)"', text)
    assert len(charts) >= 2
    for scale, bars, units in charts:
        assert float(scale) * int(units) == pytest.approx(width, abs=0.01)
        assert max(int(x) for x in re.findall(r"M(\d+) ", bars)) + 8 == int(units)


@pytest.mark.parametrize("what", FIGURES)
def test_pdf_is_the_size_of_its_figure(what: str, atlas, tmp_path: Path) -> None:
    pytest.importorskip("svglib")
    svg = ET.fromstring(atlas.figure(tmp_path / "f.svg", what, **options(what)).read_text(encoding="utf-8"))
    path = atlas.figure(tmp_path / "f.pdf", what, **options(what))
    pdf = path.read_bytes()
    assert pdf.startswith(b"%PDF-")
    box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", pdf)
    assert box is not None
    # A CSS pixel is three quarters of a point.
    assert [float(v) for v in box.groups()] == pytest.approx([0.75 * float(svg.attrib[k]) for k in ("width", "height")])
    assert atlas.figure(tmp_path / "again.pdf", what, **options(what)).read_bytes() == pdf


def test_figures_of_a_tied_dictionary_and_of_nothing(tmp_path: Path) -> None:
    for name, odd in (
        ("tied", tied_atlas()),
        ("dead", shape_atlas("D4", {}, dead=2)),
        ("trivial", shape_atlas("C1", {"circle": 2})),
    ):
        for what in FIGURES:
            assert texts(odd.figure(tmp_path / f"{name}.svg", what, **({"latent": 1} if what == "latent" else {})))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("f.png", {}, "path: expected a name that ends in .svg or .pdf"),
        ("f.svg", {"what": "pie"}, 'what: expected "kinds", "spectrum", "families" or "latent"; got pie'),
        ("f.svg", {"what": "latent"}, "latent: expected the index of a latent; got None"),
        ("f.svg", {"what": "latent", "latent": 18}, "latent: expected less than 18"),
        ("f.svg", {"what": "latent", "latent": -1}, "latent: expected the index"),
        ("f.svg", {"what": "kinds", "latent": 2}, "latent: expected None for the figure 'kinds'; got 2"),
        ("f.svg", {"what": "families", "limit": 0}, "limit: expected a whole number, at least 1"),
    ],
)
def test_bad_arguments_are_named(name: str, arguments: dict, message: str, atlas, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        atlas.figure(tmp_path / name, **arguments)
    assert list(tmp_path.iterdir()) == []


def test_without_svglib_the_remedy_is_told(atlas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("groupcc.report.figures.find_spec", lambda name: None if name == "svglib" else find(name))
    with pytest.raises(ArgumentError, match=r"svglib to be installed.*groupcc\[pdf\]"):
        atlas.figure(tmp_path / "f.pdf")
    assert atlas.figure(tmp_path / "f.svg").is_file()


def test_dataframe_is_the_table(atlas) -> None:
    pandas = pytest.importorskip("pandas")
    frame = atlas.dataframe()
    table = atlas.table()
    assert frame.index.name == "latent"
    assert frame.index.tolist() == list(range(18))
    assert list(frame.columns) == [name for name in table[0] if name != "latent"]
    assert frame["kind"].value_counts()["mirror"] == 6
    assert frame["kind"].dtype.ordered
    assert frame.sort_values("kind")["kind"].iloc[[0, -1]].tolist() == ["invariant", "dead"]
    for row in table:
        for name, value in row.items():
            if name != "latent":
                found = frame.loc[row["latent"], name]
                assert pandas.isna(found) if value is None else found == value


def test_without_pandas_the_remedy_is_told(atlas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ArgumentError, match=r"pandas to be installed.*groupcc\[pandas\].*table\(\)"):
        atlas.dataframe()
