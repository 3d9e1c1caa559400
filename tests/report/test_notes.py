"""What the page says beside the symmetry: evidence, chirality, tuning, spare latents, coverage; and the family map."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from groupcc.analysis import Contribution, Evidence, MeasuredOn, Tuning
from groupcc.analysis.evidence.measured_on import Seen
from groupcc.analysis.part import Note, Part
from groupcc.report import write_report
from groupcc.report.parts.counts import overview_counts
from groupcc.report.parts.evidence import MEASURED_ON, EvidencePart
from groupcc.report.parts.families import family_notes
from groupcc.report.parts.latents import Latents, choices
from helpers.browser import CHROMIUM, ask
from helpers.report_samples import PictureStore, drawn, page_data, shape_atlas

COLUMNS = ("unclear", "confidence", "near_miss", "broken", "chirality", "mirror_partner", "mirror_similarity", "tuning")
COLUMNS += ("tuning_width_degrees",)


def notes_of(kind: type[Part], **columns: object) -> list[Note]:
    """What a part says of latent 3 if its columns are these, and None else."""
    row = dict.fromkeys(COLUMNS) | columns
    return kind.notes(SimpleNamespace(columns=lambda latent: row), 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "columns", "words"),
    [
        (Evidence, {}, []),
        (
            Evidence,
            {"confidence": 0.97, "near_miss": "almost D2: 180° turn 0.82"},
            ["97 %", "almost D2: 180° turn 0.82"],
        ),
        (Evidence, {"unclear": "too little data"}, ["too little data"]),
        # The share of resamples is said once.
        (Evidence, {"unclear": "D1 in 50 % of resamples", "confidence": 0.5}, ["D1 in 50 % of resamples"]),
        (Evidence, {"unclear": "too little data", "confidence": 0.97}, ["too little data", "97 %"]),
        (Evidence, {"broken": "broken D2: of 16 blocks 5 missing (31 %)"}, ["D2: of 16 blocks 5 missing (31 %)"]),
        (Tuning, {}, []),
        (Tuning, {"chirality": "achiral"}, []),
        (Tuning, {"chirality": "no partner"}, ["not in the dictionary"]),
        (Tuning, {"chirality": "unclear"}, ["unclear"]),
        (Tuning, {"chirality": "partner", "mirror_partner": 7, "mirror_similarity": 0.934}, ["(match 0.93)"]),
        (Tuning, {"chirality": "partner", "mirror_partner": 3}, ["fires on its mirror image"]),
        (Tuning, {"chirality": "partner", "mirror_partner": None}, ["fires on its mirror image"]),
        (Tuning, {"tuning": "flat", "tuning_width_degrees": 40.0}, []),
        (Tuning, {"tuning": "tuned", "tuning_width_degrees": 28.04}, [" 28°."]),
        (
            Tuning,
            {"tuning": "tuned", "tuning_width_degrees": 28.04, "response_width_degrees": 31.26},
            [" 28°; on its strongest examples"],
        ),
    ],
)
def test_notes_of_a_latent(kind: type[Part], columns: dict, words: list[str]) -> None:
    """One note for each of these words, in their order."""
    notes = notes_of(kind, **columns)
    assert len(notes) == len(words)
    for note, part in zip(notes, words, strict=True):
        assert part in note.text
    assert {note.topic for note in notes} <= {"certainty" if kind is Evidence else "shape"}


def test_measured_turn_is_beside_the_decoder_s() -> None:
    (note,) = notes_of(Tuning, tuning="tuned", tuning_width_degrees=28.04, response_width_degrees=31.26)
    assert note.text.endswith("31.3°.")


def test_a_note_links_to_the_latent_that_it_names() -> None:
    (note,) = notes_of(Tuning, chirality="partner", mirror_partner=7, mirror_similarity=0.934)
    assert note.latent == 7
    link = '<a href="#latent-7">latent 7</a>'
    assert str(Latents.worded(None, note)) == note.text.replace("{}", link)  # type: ignore[arg-type]
    assert Latents.worded(None, Note("shape", "plain")) == "plain"  # type: ignore[arg-type]


def test_a_spare_latent_is_said_to_be() -> None:
    part = Contribution(torch.tensor([0.0, 0.4]), 0.4, torch.tensor([True, False]))
    (note,) = part.notes(0)
    assert note.topic == "worth"
    assert "Spare" in note.text
    assert part.notes(1) == []


def test_a_latent_of_one_shape_and_pose_with_another_says_so() -> None:
    """Nine curves turned by eighths: the last is the first again."""
    atlas = shape_atlas("C8", {"curve": 9})
    assert [note.latent for note in atlas.notes(8) if note.topic == "worth"] == [0]
    assert [note for note in atlas.notes(7) if note.topic == "worth"] == []


def evidence_part(read: dict[str, str | None], on: MeasuredOn | None = None) -> EvidencePart:
    """The report's part for one latent of which these stabilizers are read off."""
    page = SimpleNamespace(reader=SimpleNamespace(atlas=None, group=None))
    return EvidencePart(page, SimpleNamespace(estimates=[read], activations_on=on))  # type: ignore[arg-type]


def test_estimates_that_differ_are_marked() -> None:
    read = {"decoder": "D1", "encoder": None, "activations": None}
    assert evidence_part(read).read_off(0) == []
    read |= {"encoder": "D1", "activations": "D2"}
    first = [("decoder", "D1", False), ("encoder", "D1", False)]
    assert evidence_part(read).read_off(0) == [*first, ("activations", "D2", True)]
    for seen, words in MEASURED_ON.items():
        told = evidence_part(read, MeasuredOn(seen, 5, 50)).read_off(0)  # type: ignore[arg-type]
        assert told == [*first, (f"activations {words}", "D2", True)]
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
    assert evidence_part({"decoder": "D1", "encoder": encoder, "activations": activations}).differing(0) == said


def test_notes_of_a_family() -> None:
    atlas = shape_atlas("D8", {"curve": 3})
    gaps, poses = family_notes(atlas.coverage(0), 0.25)
    assert re.search(r" (at|from) \+\d", gaps)
    assert "25 %" in poses
    whole = shape_atlas("D8", {"curve": 8})
    every, poses = family_notes(whole.coverage(0), 0.0)
    assert "Every orientation" in every
    assert "fit together" in poses
    assert family_notes(None, None) == family_notes(None, float("nan")) == []


def test_a_gap_is_where_no_member_is() -> None:
    """Curves at 0°, 45° and 90° of eight: the middle of the rest is far from all."""
    atlas = shape_atlas("D8", {"curve": 3})
    coverage = atlas.coverage(0)
    assert coverage is not None
    ((mirrored, first, last),) = coverage.gaps
    assert not mirrored
    (note,) = family_notes(coverage, None)
    assert f"from +{first:g}° to +{last:g}°." in note
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
    assert overview_counts(rows) == [
        ("chiral", "2 (1 of them with their mirror image)"),
        ("unclear", "1"),
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
