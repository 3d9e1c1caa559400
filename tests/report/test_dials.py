"""The orientation dial on the page: its numbers, its words, its drawing, and nothing of it where nothing is tied."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from groupcc import report
from groupcc.analysis import Atlas, read_dial
from groupcc.groups import group
from groupcc.report import summary, write_report
from groupcc.report.parts.dial import dial_view
from groupcc.report.pose_words import dial_sentence
from groupcc.report.svg import pose_dial
from groupcc.report.words import headline
from helpers.pages import read
from helpers.report_samples import PictureStore, drawn, shape_atlas, tied_atlas


def sectors(markup: str, name: str) -> list[tuple[float, float, float]]:
    """(degrees counter-clockwise from the top, inner, outer radius) of each sector of a class."""
    found = []
    for path in re.findall(rf'<path class="{name}" d="([^"]*)"/>', markup):
        for cell in path.split("z"):
            numbers = [int(n) for n in re.findall(r"-?\d+", cell)]
            if numbers:
                points = np.array(numbers).reshape(-1, 2) @ np.array([1, -1j])
                angle = (math.degrees(np.angle(points.mean())) - 90) % 360
                found.append((round(angle, 1) % 360, abs(points).min(), abs(points).max()))
    return sorted(found)


def dial_of(counts, name: str, label: str = "C1"):
    G = group(name)
    return read_dial(np.array(counts), G, G.subgroup_named(label).mask), G


@pytest.mark.parametrize("name", ["C5", "D3", "D8", "C1", "D1"])
def test_bars_are_where_the_poses_are_and_as_long_as_their_counts(name: str) -> None:
    G = group(name)
    for g in range(G.order):
        counts = np.zeros(G.order, dtype=np.int64)
        counts[g] = 8
        counts[0] += 4
        dial, _ = dial_of(counts, name)
        markup = str(pose_dial(dial, G))
        own = sectors(markup, "mirror" if G.reflections[g] else "turn")
        angles = {angle for angle, _, _ in own}
        if G.n > 1:
            assert min(abs((a - math.degrees(G.angles[g]) + 180) % 360 - 180) for a in angles) < 0.6
        high = 485 if G.kind == "cyclic" else 480 if G.reflections[g] else 285
        longest = max(outer for _, _, outer in own)
        assert longest == pytest.approx(high, abs=2)
        if g:
            base = [s for s in sectors(markup, "turn") if G.n == 1 or min(s[0], 360 - s[0]) < 0.6]
            half = (120 + (485 if G.kind == "cyclic" else 285)) / 2
            assert base[0][2] == pytest.approx(half, abs=2)
        assert len(sectors(markup, "track")) + len(sectors(markup, "void")) == G.order


def test_gaps_are_marked_where_they_are() -> None:
    dial, G = dial_of([60, 60, 0, 0, 60, 60, 60, 60] + [0] * 8, "D8")
    markup = str(pose_dial(dial, G))
    void, rim = sectors(markup, "void"), sectors(markup, "gap")
    assert [round(a / 45) for a, low, _ in void if low < 300] == [2, 3]
    assert sum(low > 300 for _, low, _ in void) == 8
    assert len(rim) == 10
    assert len(sectors(markup, "track")) == 6
    assert sectors(markup, "mirror") == []


def test_equal_poses_are_drawn_at_each() -> None:
    G = group("D8")
    counts = np.zeros(16, dtype=np.int64)
    counts[[1, 8 + 6]] = 30, 10  # a line turned by 45°, and one mirrored, which is as if turned by 270°
    dial = read_dial(counts, G, G.subgroup_named("D2@0°").mask)
    markup = str(pose_dial(dial, G))
    assert sectors(markup, "mirror") == []
    assert len(sectors(markup, "track")) + len(sectors(markup, "void")) == 8
    angles = [round(a) for a, _, _ in sectors(markup, "turn")]
    assert angles == [45, 90, 225, 270]


@pytest.mark.parametrize(
    ("counts", "name", "label", "words"),
    [
        ([9] * 4, "C4", "C4", ["36 times.", "one pose"]),
        ([1, 0, 0, 0], "C4", "C1", ["1 time,", "too seldom", "4 poses"]),
        ([500] * 4, "C4", "C1", ["2,000 times,", "evenly over its 4", "90° or more"]),
        ([500, 900, 400, 500], "C4", "C1", ["2,300", "without a gap", "+90° (39 %", "+180° (17 %", "90° or more"]),
        ([500] * 5 + [900], "D3", "C1", ["3,400", "mirrored and at +240° (26 %", " 0° (15 %", "120° or more"]),
        ([50, 50, 50, 0], "C4", "C1", ["150", "in 1 of its 4", ": at +270°."]),
        ([0, 99, 99, 99, 99, 99, 99, 0], "C8", "C1", ["594", "in 2 of its 8", ": from +315° to 0°", "of 90°)."]),
        ([0, 99] * 4, "C8", "C1", ["396", "in 4 of its 8", ": at 0°, at +90°, at +180°", ", 1 smaller gap."]),
        ([0, 99, 99, 99, 99, 99, 99, 0], "D4", "C1", ["in 2 of its 8", ": at 0°;", "mirrored and at +270°."]),
        ([99] * 3 + [0] * 3, "D3", "C1", ["in 3 of its 6", ": all", "are mirrored."]),
        ([0] * 3 + [99] * 3, "D3", "C1", ["in 3 of its 6", ": all", "are not mirrored."]),
    ],
)
def test_sentences(counts: list[int], name: str, label: str, words: list[str]) -> None:
    """The numbers of a dial and what is said of them, in this order."""
    sentence = dial_sentence(dial_of(counts, name, label)[0])
    places = [sentence.find(part) for part in words]
    assert -1 not in places, sentence
    assert places == sorted(places)


def test_the_page_shows_each_dial_with_its_numbers(tmp_path: Path) -> None:
    atlas = tied_atlas()
    atlas.pose_counts[3] = torch.arange(16) + 40
    atlas.pose_counts[3, 2:5] = 0
    text = drawn(write_report(tmp_path / "r.html", atlas, PictureStore()).read_text(encoding="utf-8"))
    page = read(tmp_path / "r.html")
    # The circle has one pose and no dial; a small and a large figure for each of the others, drawn once.
    assert len(page.with_class("poses")) == 6
    assert sorted(re.findall(r'<g id="dial-(\d+)">', text)) == ["1", "2", "3"]
    card = text.split('id="latent-3"')[1].split('<details class="latent ')[0]
    listed = "".join(f"{45 * i}°: {c}, ".replace(".0°", "°") for i, c in enumerate([40, 41, 0, 0, 0, 45, 46, 47]))
    assert f"Turned by {listed[:-2]}" in card
    assert "by 0°: 48, 45°: 49" in card
    assert "in 3 of its 16" in card
    assert "(a gap of 135°)." in card
    assert 'class="swatch gap"' in card
    line = text.split('id="latent-1"')[1].split('<details class="latent ')[0]
    assert "Fired 800 times" in line
    assert "90°: 200, 135°: 200<" in line
    assert 'class="swatch gap"' not in line
    for attrs in page.with_class("poses"):
        assert "Fired" in attrs["aria-label"]
    assert "2 fire evenly" in page.words
    assert "1 has gaps" in page.words
    assert "Base latents 4" in page.words
    assert drawn(write_report(tmp_path / "again.html", atlas, PictureStore()).read_text(encoding="utf-8")) == text


def test_patches_are_turned_back_by_their_poses(tmp_path: Path) -> None:
    atlas = tied_atlas("D8", ("curve", "spiral"))
    G = atlas.group
    poses = torch.tensor([[3], [G.n + 6]])
    atlas = dataclasses.replace(atlas, top_examples=dataclasses.replace(atlas.top_examples, poses=poses))
    store = PictureStore()
    page = read(write_report(tmp_path / "r.html", atlas, store))
    assert "by their poses" in page.words
    # Five eighths of a turn undo three; a reflection undoes itself.
    assert (0, 5) in store.asked
    assert (0, 3) not in store.asked
    assert (1, G.n + 6) in store.asked


def test_shapes_learned_twice(tmp_path: Path) -> None:
    """The second curve is the first turned by 90 degrees, and found in pose 1: its patch goes back by both."""
    atlas = tied_atlas("D8", ("curve", "spiral"))
    crosscoder_atlas = tied_atlas("D8", ("curve", "spiral", "curve"))
    # Latents 0 and 2 are drawn with different mixings and differ; make them one shape by hand.
    duplicates = dataclasses.replace(
        crosscoder_atlas.duplicates,
        labels=torch.tensor([0, 1, 0]),
        references=[0, 1],
        poses=torch.tensor([0, 0, 2]),
        turns=torch.tensor([0.0, 0.0, 90.0]),
    )
    twice = dataclasses.replace(crosscoder_atlas, duplicates=duplicates)
    store = PictureStore()
    page = read(write_report(tmp_path / "r.html", twice, store))
    assert len(page.with_class("family")) == 1
    assert any("of shape 0" in attrs.get("aria-label", "") for _, attrs in page.tags)
    assert "not shown here" not in page.words
    assert "1 family of copies" in summary(twice)
    assert page.with_class("dial") == []
    assert all(note.topic != "worth" for latent in range(3) for note in twice.notes(latent))
    G = twice.group
    assert (2, int(G.inverse[G.cayley[1, 2]])) in store.asked
    none = read(write_report(tmp_path / "none.html", atlas, store))
    assert "No two base latents" in none.words
    assert none.with_class("family") == []


def test_an_untied_page_has_none_of_it(tmp_path: Path) -> None:
    page = read(write_report(tmp_path / "r.html", shape_atlas(top=2), PictureStore()))
    assert page.with_class("poses") == page.with_class("fired") == []
    for words in ("Base latent", "base latent", "Orientation dial", "by their poses", "distinct"):
        assert words not in page.words
    assert "Latents 14" in page.words


def test_headline_and_summary_of_a_tied_dictionary() -> None:
    atlas = tied_atlas()
    sentences = headline(atlas)
    assert sentences[0].startswith("Of 4 live base latents, 1 ")
    assert "29 distinct atoms" in sentences[1]
    assert "3 fire evenly" in sentences[3]
    assert "4 base latents" in summary(atlas)
    assert "29 distinct atoms" in summary(atlas)
    without = dataclasses.replace(atlas, pose_counts=None, top_examples=None)
    assert len(headline(without)) == 3
    assert "pose," not in summary(without)


def test_what_is_tied_in_part_says_how_much_is_not_shared(tmp_path: Path) -> None:
    atlas = tied_atlas()
    partly = dataclasses.replace(
        atlas,
        config=dataclasses.replace(atlas.config, tied="residual"),
        residual_share=torch.tensor([0.9, 0.02, 0.34, 0.04]),
        dead=torch.tensor([True, False, False, False]),
    )
    (sentence,) = (sentence for sentence in headline(partly) if "not shared" in sentence)
    assert "median 4.0 %" in sentence, "of the live latents"
    assert "34 % (latent 2)" in sentence
    page = read(write_report(tmp_path / "r.html", partly, PictureStore()))
    for words in (sentence, "34 % of its power", "Power not shared"):
        assert words in page.words
    whole = read(write_report(tmp_path / "whole.html", atlas, PictureStore()))
    assert "not shared" not in whole.words


def test_without_orbits_there_are_no_dials(tmp_path: Path) -> None:
    without = dataclasses.replace(tied_atlas(), pose_counts=None, top_examples=None)
    page = read(write_report(tmp_path / "r.html", without))
    assert page.with_class("poses") == []
    assert "16 distinct poses." in page.words
    assert "Orientation dial" not in page.words


def test_an_atlas_written_before_poses_were_counted(tmp_path: Path) -> None:
    """It has examples but not their poses: no dials, nothing turned back, and the table says None."""
    atlas = tied_atlas()
    top = dataclasses.replace(atlas.top_examples, poses=None)
    older = dataclasses.replace(atlas, pose_counts=None, residual_share=None, top_examples=top)
    again = Atlas.load(older.save(tmp_path / "atlas"))
    page = read(write_report(tmp_path / "r.html", again, PictureStore()))
    assert page.with_class("poses") == []
    assert "by their poses" not in page.words
    assert "29 distinct atoms" in page.words
    row = again.table()[1]
    assert (row["atoms"], row["dial"], row["residual_share"]) == (4, None, None)


@pytest.mark.parametrize("name", ["C1", "D1", "C2", "D2", "C3", "D3", "D32"])
def test_any_group(tmp_path: Path, name: str) -> None:
    atlas = tied_atlas(name, ("curve",))
    page = read(write_report(tmp_path / "r.html", atlas, PictureStore()))
    assert len(page.with_class("poses")) == (0 if atlas.dial(0).kind == "one" else 2)


def test_a_dial_is_small() -> None:
    """17 kB of a page for all 64 poses of D32."""
    dial, G = dial_of(np.arange(64) + 20, "D32")
    view = dial_view(7, dial, G)
    assert view is not None
    assert len(view.small) + len(view.large) < 17_000


def test_a_row_of_the_comparison_links_to_its_report(tmp_path: Path) -> None:
    rows = [{"dictionary": "one", "FVU": 0.1}, {"dictionary": "tied", "FVU": 0.2, "report": "table.csv"}]
    page = read(write_report(tmp_path / "r.html", shape_atlas(), baseline=rows))
    assert "dictionary FVU one 0.100 tied 0.200" in page.words
    assert sum(tag == "a" and attrs.get("href") == "table.csv" for tag, attrs in page.tags) == 1


def test_the_colours_of_a_dial_are_told_apart() -> None:
    """At least 3 to 1, as WCAG 2 asks of drawings: bars and rims on what is under them, the mean on its circle."""
    css = (Path(report.__file__).parent / "assets" / "base.css").read_text(encoding="utf-8")
    pairs_of = re.findall(r"--(\w+): light-dark\((#\w{6}), (#\w{6})\)", css)
    light, dark = ({name: shades[i] for name, *shades in pairs_of} for i in (0, 1))
    pairs = [
        ("turn", "mute"),
        ("turn", "void"),
        ("mirror", "mute"),
        ("mirror", "void"),
        ("gap", "card"),
        ("ink", "card"),
    ]
    for colours in (light, dark):
        for front, back in [*pairs, ("card", "turn"), ("card", "mirror")]:
            low, high = sorted(map(luminance, (colours[front], colours[back])))
            assert (high + 0.05) / (low + 0.05) >= 3, (front, back)


def luminance(colour: str) -> float:
    parts = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])
