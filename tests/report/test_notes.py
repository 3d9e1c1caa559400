"""What the page says beside the symmetry: evidence, chirality, tuning, spare latents, coverage; and the family map."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from groupcc.analysis import Atlas, Contribution, Evidence, MeasuredOn, Mirrors, Null, Tuning
from groupcc.analysis.evidence.evidence import Estimate
from groupcc.analysis.evidence.measured_on import Seen
from groupcc.analysis.families.mirrors import CHIRALITIES
from groupcc.analysis.part import Note, Part
from groupcc.analysis.symmetry.stabilizers import restore_stabilizer
from groupcc.groups import group
from groupcc.report import write_report
from groupcc.report.parts.counts import overview_counts
from groupcc.report.parts.evidence import MEASURED_ON, EvidencePart
from groupcc.report.parts.families import family_notes
from groupcc.report.parts.latents import choices
from helpers.browser import CHROMIUM, ask
from helpers.report_samples import PictureStore, drawn, page_data, shape_atlas, tied_atlas

TYPES = ("C1", "C2", "C4", "C8", "D1", "D2", "D4", "D8")
"""Subgroups of D8 as `Evidence.shares` lists them."""


def evidence(
    *,
    own: str = "D1",
    share: float | None = 1.0,
    half_turn: float = 0.0,
    broken: int = 0,
    reason: str = "",
    **others: Any,
) -> Evidence:
    """The evidence for one latent of D8 with the stabilizer `own`, its mirror line horizontal.

    `share`: resamples that give it; NaN if it fires too seldom, None without orbits. `half_turn`: C of the elements
    that D2 adds to D1. `broken`: blocks that are missing. `reason`: why its label is not stated.
    """
    G = group("D8")
    label = own if own.startswith("C") else f"{own}@0°"
    mask = G.subgroup_named(label).mask
    C = torch.zeros(1, 16)
    more = G.subgroup_named("D2@0°").mask
    C[0, more.nonzero()[0]] = half_turn
    C[0, mask.nonzero()[0]] = 1.0
    C[0, ~torch.from_numpy(more | mask)] = -float(C.sum()) / int((~(more | mask)).sum())  # no invariant share
    kind = {"C1": "none", "D1": "mirror", "D2": "180"}[own]
    axis = 0.0 if own.startswith("D") else None
    made = {"name": own, "label": label, "axis": axis, "score": 1.0, "kind": kind, "reason": reason}
    stabilizer = restore_stabilizer(G, **made, broken=broken > 0)
    shares = None
    if share is not None:
        shares = torch.zeros(1, len(TYPES))
        shares[0, TYPES.index(own)] = share
    blocks = torch.zeros(1, 16, dtype=torch.int8)
    blocks[0, :broken] = 2
    null = Null(None, None, torch.full((len(TYPES),), -1.0, dtype=torch.float64))
    return Evidence(G, [stabilizer], 0.1, C, blocks, null, shares=shares, **others)


def estimate(name: str | None) -> Estimate:
    """Another estimate of one latent's stabilizer; None: it can't be said."""
    types = torch.tensor([-1 if name is None else TYPES.index(name)], dtype=torch.int8)
    return Estimate(torch.zeros(1, 16), types, 0.1)


def tuning(
    chirality: str | None = None,
    *,
    partner: int = -1,
    flat: bool = False,
    width: float = math.nan,
    measured: float | None = None,
) -> Tuning:
    """The tuning of latent 3; the others are dead. None: nothing is known of its mirror image."""

    def only(value: float, other: float = math.nan) -> torch.Tensor:
        return torch.tensor([other] * 3 + [value])

    code = -1 if chirality is None else CHIRALITIES.index(chirality)
    mirrors = Mirrors(
        codes=torch.tensor([-1] * 3 + [code], dtype=torch.int8),
        own=only(0.5),
        partner=torch.tensor([-1] * 3 + [partner]),
        similarity=only(0.934, 0.0),
        pose=torch.zeros(4, dtype=torch.int64),
        turn=only(0.0),
        mirrored_share=only(math.nan),
    )
    depth, response = (None, None) if measured is None else (only(1.0), only(measured))
    return Tuning(only(0.0 if flat else 360.0), only(1.0), only(width), mirrors, None, depth, response)


def texts(part: Part, topic: str, latent: int) -> list[str]:
    """What a part says of a latent, all of it on one topic."""
    notes = part.notes(latent)
    assert {note.topic for note in notes} <= {topic}
    return [note.text if note.latent is None else note.text.format(f"latent {note.latent}") for note in notes]


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ({"share": None}, []),
        (
            {"share": 0.97, "half_turn": 0.82},
            [
                "In 97 % of resamples of the images its stabilizer is the same.",
                "Near miss: almost D2: 180° turn 0.82.",
            ],
        ),
        ({"share": math.nan, "reason": "too little data"}, ["Undecided: too little data."]),
        ({"share": 0.5, "reason": "D1 in 50 % of resamples"}, ["Undecided: D1 in 50 % of resamples."]),
        (
            {"share": 0.97, "reason": "data D1, decoder C1"},
            [
                "Undecided: data D1, decoder C1.",
                "In 97 % of resamples of the images its stabilizer is the same.",
            ],
        ),
        (
            {"own": "D2", "share": None, "half_turn": 1.0, "broken": 5},
            ["Its symmetry is broken D2: of 16 blocks 5 missing (31 %)."],
        ),
    ],
)
def test_notes_on_the_evidence(given: dict, notes: list[str]) -> None:
    assert texts(evidence(**given), "certainty", 0) == notes


@pytest.mark.parametrize(
    ("given", "notes"),
    [
        ({}, []),
        ({"chirality": "achiral"}, []),
        ({"chirality": "no partner"}, ["Chiral: its mirror image is not in the dictionary."]),
        ({"chirality": "unclear"}, ["Chiral; whether its mirror image occurs too is unclear."]),
        ({"chirality": "partner", "partner": 7}, ["Chiral: latent 7 is its mirror image (match 0.93)."]),
        ({"chirality": "partner", "partner": 3}, ["Chiral: it fires on its mirror image too."]),
        ({"chirality": "partner"}, ["Chiral: it fires on its mirror image too."]),
        ({"flat": True, "width": 40.0}, []),
        ({"width": 28.04}, ["Half as alike after a turn of 28°."]),
        (
            {"width": 28.04, "measured": 31.26},
            ["Half as alike after a turn of 28°; on its strongest examples it fires half as strongly after 31.3°."],
        ),
    ],
)
def test_notes_on_the_shape(given: dict, notes: list[str]) -> None:
    assert texts(tuning(**given), "shape", 3) == notes


def test_notes_on_what_a_latent_is_worth() -> None:
    part = Contribution(torch.tensor([0.5, 0.001]), 0.5, torch.tensor([False, True]))
    assert texts(part, "worth", 0) == []
    (spare,) = texts(part, "worth", 1)
    assert spare.startswith("Spare: it fires, but explains next to nothing")


def with_duplicates() -> Atlas:
    """Two curves of four are one shape in one pose."""
    atlas = dataclasses.replace(shape_atlas("D8", {"curve": 4}), parts={})
    families = dataclasses.replace(atlas.families, duplicate_of=torch.tensor([-1, -1, -1, 1]))
    return dataclasses.replace(atlas, families=families)


def test_a_copy_in_the_same_pose_is_named() -> None:
    atlas = with_duplicates()
    assert atlas.notes(3) == [Note("worth", "The same shape in the same pose as {}.", 1)]
    assert atlas.notes(1) == []
    tied = dataclasses.replace(tied_atlas("D8", ("curve", "curve")), parts={})
    learned = dataclasses.replace(tied.duplicates, labels=torch.tensor([0, 0]), references=[0])
    tied = dataclasses.replace(tied, duplicates=learned)
    assert tied.table()[1]["duplicate_of"] == 0
    assert tied.notes(1) == [], "a latent that has poses is told of by its shape's card"


def test_a_latent_that_a_note_names_is_a_link(tmp_path: Path) -> None:
    text = drawn(write_report(tmp_path / "r.html", with_duplicates()).read_text(encoding="utf-8"))
    assert 'in the same pose as <a href="#latent-1">latent 1</a>.</li>' in text


def part_of_page(of: Evidence) -> EvidencePart:
    reader = SimpleNamespace(atlas=None, group=of.group)
    return EvidencePart(SimpleNamespace(reader=reader), of)


def test_estimates_that_differ_are_marked() -> None:
    assert part_of_page(evidence()).read_off(0) == []
    assert part_of_page(evidence(encoder=estimate(None))).read_off(0) == []
    read = {"encoder": estimate("D1"), "activations": estimate("D2")}
    expected = [("label", "D1", False), ("decoder", "D1", False), ("encoder", "D1", False), ("activations", "D2", True)]
    assert part_of_page(evidence(**read)).read_off(0) == expected
    for seen, words in MEASURED_ON.items():
        on = MeasuredOn(seen, 5, 100)
        assert part_of_page(evidence(**read, activations_on=on)).read_off(0) == [
            *expected[:3],
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
    part = part_of_page(evidence(encoder=estimate(encoder), activations=estimate(activations)))
    assert part.differing(0) == said


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
    def row(kind, stabilizer, chirality, undecided, *, encoder, activations):
        read = {"stabilizer": stabilizer, "stabilizer_encoder": encoder, "stabilizer_activations": activations}
        return {"kind": kind, "chirality": chirality, "undecided": undecided, **read}

    rows = [
        row("mirror", "D1", "achiral", None, encoder="C1", activations="D1"),
        row("none", "C1", "partner", "too little data", encoder="D1", activations="D1"),
        row("none", "C1", "no partner", None, encoder="C1", activations=None),
        row("dead", "dead", None, "x", encoder=None, activations="C1"),
    ]
    assert overview_counts(rows) == [
        ("chiral", "2 (1 of them with their mirror image)"),
        ("undecided", "1"),
        ("activations disagree", "1 of 2"),
        ("encoder disagrees", "2 of 3"),
    ]
    for row in rows[:2]:
        row["activations_on"] = "held-out"
    assert overview_counts(rows)[2:] == [
        ("activations disagree", "1 of 2, on held-out images"),
        ("encoder disagrees", "2 of 3"),
    ]
    assert overview_counts([{"kind": "mirror"}]) == []
    assert overview_counts([]) == []


def test_flags_and_yes_or_no() -> None:
    table = [
        {"undecided": "why", "spare": True},
        {"undecided": None, "spare": False},
        {"undecided": None, "spare": False},
    ]
    by_column = {choice.column: choice for choice in choices(table, [0, 1, 2])}
    assert by_column["undecided"].values == [("yes", "yes", 1), ("no", "no", 2)]
    assert by_column["undecided"].flag
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
