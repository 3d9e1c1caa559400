"""What the page says beside the symmetry: evidence, chirality, tuning, spare latents, coverage; and the family map."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest
import torch
from groupcc.report.cards import choices
from groupcc.report.notes import MEASURED_ON, differing, estimates, family_notes, latent_notes, overview_notes

from groupcc.analysis.evidence.measured_on import Seen
from groupcc.report import write_report
from helpers.browser import CHROMIUM, ask
from helpers.report_samples import PictureStore, drawn, page_data, shape_atlas

ROW = {"latent": 3, "stabilizer": "D1"}


@pytest.mark.parametrize(
    ("columns", "notes"),
    [
        ({}, []),
        ({"unclear": None, "confidence": None, "near_miss": None, "broken": None, "chirality": None}, []),
        (
            {"confidence": 0.97, "near_miss": "almost D2: 180° turn 0.82"},
            [
                "In 97 % of resamples of the images its stabilizer is the same.",
                "Near miss: almost D2: 180° turn 0.82.",
            ],
        ),
        ({"unclear": "too little data"}, ["Unclear: too little data."]),
        ({"unclear": "D1 in 50 % of resamples", "confidence": 0.5}, ["Unclear: D1 in 50 % of resamples."]),
        (
            {"unclear": "too little data", "confidence": 0.97},
            ["Unclear: too little data.", "In 97 % of resamples of the images its stabilizer is the same."],
        ),
        (
            {"broken": "broken D2: of 16 blocks 5 missing (31 %)"},
            ["Its symmetry is broken D2: of 16 blocks 5 missing (31 %)."],
        ),
        ({"chirality": "achiral"}, []),
        ({"chirality": "no partner"}, ["Chiral: its mirror image is not in the dictionary."]),
        ({"chirality": "unclear"}, ["Chiral; whether its mirror image occurs too is unclear."]),
        (
            {"chirality": "partner", "mirror_partner": 7, "mirror_similarity": 0.934},
            ['Chiral: <a href="#latent-7">latent 7</a> is its mirror image (match 0.93).'],
        ),
        ({"chirality": "partner", "mirror_partner": 3}, ["Chiral: it fires on its mirror image too."]),
        ({"tuning": "flat", "tuning_width_degrees": 40.0}, []),
        ({"tuning": "tuned", "tuning_width_degrees": 28.04}, ["Half as alike after a turn of 28°."]),
        (
            {"tuning": "tuned", "tuning_width_degrees": 28.04, "response_width_degrees": 31.26},
            ["Half as alike after a turn of 28°; on its strongest examples it fires half as strongly after 31.3°."],
        ),
        (
            {"spare": True},
            ["Spare: it fires, but explains next to nothing, so its symmetry says little about the network."],
        ),
        ({"spare": False, "duplicate_of": None}, []),
        ({"duplicate_of": 5}, ['The same shape in the same pose as <a href="#latent-5">latent 5</a>.']),
        ({"duplicate_of": 5, "atoms": 16}, []),
    ],
)
def test_notes_of_a_latent(columns: dict, notes: list[str]) -> None:
    assert [str(note) for note in latent_notes({**ROW, **columns})] == notes


def test_estimates_that_differ_are_marked() -> None:
    assert estimates({**ROW, "stabilizer_encoder": None}) == []
    told = {**ROW, "stabilizer_encoder": "D1", "stabilizer_activations": "D2"}
    assert estimates(told) == [("decoder", "D1", False), ("encoder", "D1", False), ("activations", "D2", True)]
    for seen, words in MEASURED_ON.items():
        assert estimates({**told, "activations_on": seen})[1:] == [
            ("encoder", "D1", False),
            (f"activations {words}", "D2", True),
        ]
    assert set(MEASURED_ON) == set(get_args(Seen))


@pytest.mark.parametrize(
    ("encoder", "activations", "said"),
    [
        ("D1", "D1", ""),
        ("C1", "D1", "the encoder differs"),
        ("D1", "D2", "the activations differ"),
        ("C1", "D2", "the encoder and the activations differ"),
        (None, "D2", "the activations differ"),
    ],
)
def test_who_differs_is_said(encoder: str | None, activations: str, said: str) -> None:
    assert differing({**ROW, "stabilizer_encoder": encoder, "stabilizer_activations": activations}) == said


def test_notes_of_a_family() -> None:
    atlas = shape_atlas("D8", {"curve": 3})
    told = family_notes(atlas.coverage(0), 0.25)
    assert re.fullmatch(r"No member detects it (at|from) \+.*\.", told[0])
    assert told[1] == "The members’ poses disagree in 25 % of its pairs."
    whole = shape_atlas("D8", {"curve": 8})
    assert family_notes(whole.coverage(0), 0.0) == [
        "Every orientation is near enough to a member’s to be detected.",
        "The members’ poses fit together.",
    ]
    assert family_notes(None, None) == family_notes(None, float("nan")) == []


def test_a_gap_is_where_no_member_is() -> None:
    """Curves at 0°, 45° and 90° of eight: the middle of the rest is far from all."""
    atlas = shape_atlas("D8", {"curve": 3})
    coverage = atlas.coverage(0)
    assert coverage is not None
    ((mirrored, first, last),) = coverage.gaps
    assert not mirrored
    (note,) = family_notes(coverage, None)
    assert note == f"No member detects it from +{first:g}° to +{last:g}°."
    assert first <= 225 <= last


def test_the_overview_counts_live_latents() -> None:
    def row(kind, stabilizer, chirality, unclear, *, encoder, activations):
        read = {"stabilizer": stabilizer, "stabilizer_encoder": encoder, "stabilizer_activations": activations}
        return {"kind": kind, "chirality": chirality, "unclear": unclear, **read}

    rows = [
        row("mirror", "D1", "achiral", None, encoder="C1", activations="D1"),
        row("none", "C1", "partner", "too little data", encoder="D1", activations="D1"),
        row("none", "C1", "no partner", None, encoder="C1", activations=None),
        row("dead", "dead", None, "x", encoder=None, activations="C1"),
    ]
    assert overview_notes(rows) == [
        ("chiral", "2 (1 of them with their mirror image)"),
        ("unclear", "1"),
        ("activations disagree", "1 of 2"),
        ("encoder disagrees", "2 of 3"),
    ]
    for row in rows[:2]:
        row["activations_on"] = "held-out"
    assert overview_notes(rows)[2:] == [
        ("activations disagree", "1 of 2, on held-out images"),
        ("encoder disagrees", "2 of 3"),
    ]
    assert overview_notes([{"kind": "mirror"}]) == []
    assert overview_notes([]) == []


def test_flags_and_yes_or_no() -> None:
    table = [{"unclear": "why", "spare": True}, {"unclear": None, "spare": False}, {"unclear": None, "spare": False}]
    by_column = {choice.column: choice for choice in choices(table, [0, 1, 2])}
    assert by_column["unclear"].values == [("yes", "yes", 1), ("no", "no", 2)]
    assert by_column["unclear"].flag
    assert by_column["spare"].values == [("false", "no", 2), ("true", "yes", 1)]
    assert choices(table, [1, 2]) == []


def with_map(atlas):
    """The atlas with places: whatever of it makes map_x and map_y, the page reads the table."""
    rows = atlas.table()
    angle = torch.arange(len(rows)) * 0.7
    for i, row in enumerate(rows):
        dead = row["kind"] == "dead"
        row |= {"map_x": None if dead else float(0.5 + 0.4 * angle[i].cos()), "map_y": None if dead else i / len(rows)}

    @dataclasses.dataclass(frozen=True, eq=False)
    class Mapped(type(atlas)):
        def table(self):
            return rows

    return Mapped(**{field.name: getattr(atlas, field.name) for field in dataclasses.fields(atlas)})


def test_without_places_there_is_no_map(tmp_path: Path) -> None:
    atlas = shape_atlas("D8", {"curve": 3})
    atlas = dataclasses.replace(atlas, parts={})
    text = write_report(tmp_path / "r.html", atlas).read_text(encoding="utf-8")
    assert '<svg id="map"' not in text
    assert drawn(text).count("notes") == text.count(".notes"), "and no notes but in the style"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here")
def test_the_map_shows_what_is_chosen_and_opens_what_is_clicked(tmp_path: Path) -> None:
    atlas = with_map(shape_atlas("D8", {"circle": 2, "line": 4, "curve": 6}, dead=1, top=2))
    page = write_report(tmp_path / "r.html", atlas, PictureStore())
    text = page.read_text(encoding="utf-8")
    data = page_data(text)
    row = data["latents"].index(9)
    x, y = 12 + 976 * data["columns"]["map_x"][row], 12 + 976 * data["columns"]["map_y"][row]
    all_kinds, chosen, says, opened, discs = ask(
        page,
        tmp_path,
        f"const x = {x}, y = {y};"
        """const dots = () => Object.fromEntries([...map.querySelectorAll("path")].map((path) =>
          [path.getAttribute("class"), path.getAttribute("d").split("M").length - 1]));
        const map = document.getElementById("map"), all = dots();
        document.getElementById("kind-180").click(); const chosen = dots();
        const box = map.getBoundingClientRect(), scale = box.width / 1060;
        const at = {bubbles: true, clientX: box.left + (x + 30) * scale + 2, clientY: box.top + (y + 30) * scale + 2};
        map.dispatchEvent(new PointerEvent("pointermove", at));
        const says = document.getElementById("map-says").textContent;
        map.dispatchEvent(new MouseEvent("click", at)); await new Promise((done) => setTimeout(done, 200));
        return [all, chosen, says, document.querySelector("#list details[open]").id,
          map.querySelectorAll("circle").length];""",
    )
    assert all_kinds == {"k-invariant": 2, "k-180": 4, "k-mirror": 6}
    assert chosen == {"k-180": 4, "k-pale": 8}
    assert says.startswith("Latent 9, moves with the image, one mirror line, family ")
    assert opened == "latent-9"
    assert discs == sum(size > 1 for size in atlas.families.sizes)
