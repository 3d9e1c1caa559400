"""`--causal`: families checked on the way to the report, once for the same inputs; `report --causal FILE`."""

from __future__ import annotations

import json
import shutil

import pytest

import groupcc
from groupcc.cli import main
from groupcc.cli.parser import build_parser
from helpers.workplaces import RUN

QUESTION = "use them so? Checked for 2 families"
SHORT = [*RUN[: RUN.index("--baseline")], "--title", "T", "--forward-batch", "8", "--max-images", "3"]


@pytest.fixture
def counted(monkeypatch):
    """How often, and how, a check was made."""
    made, check = [], groupcc.causal_check

    def causal_check(*arguments, **options):
        made.append(options)
        return check(*arguments, **options)

    monkeypatch.setattr(groupcc, "causal_check", causal_check, raising=False)
    return made


def test_run_checks_once_for_the_same_inputs(workplace, counted, capsys):
    file = workplace / "out" / "causal" / "causal.json"
    assert main(SHORT) == 0
    assert not counted
    assert QUESTION not in (workplace / "out" / "report.html").read_text(encoding="utf-8")

    assert main([*SHORT, "--causal", "2"]) == 0
    page, scores = (workplace / "out" / "report.html").read_text(encoding="utf-8"), file.read_bytes()
    assert QUESTION in page
    assert "causal check of 2 families" in capsys.readouterr().out
    (options,) = counted
    assert (options["n_families"], options["max_images"], options["input_size"]) == (2, 3, 33)
    assert {effect["family"] for effect in json.loads(scores)["effects"]} == {0, 1}

    assert main([*SHORT, "--causal", "2"]) == 0
    assert len(counted) == 1
    assert (file.read_bytes(), (workplace / "out" / "report.html").read_text(encoding="utf-8")) == (scores, page)

    file.write_bytes(scores[:-30])
    assert main([*SHORT, "--causal", "2"]) == 0
    assert "checking again" in capsys.readouterr().out
    assert len(counted) == 2
    assert (file.read_bytes(), (workplace / "out" / "report.html").read_text(encoding="utf-8")) == (scores, page)

    # More to check, other options, other images, another dictionary: the scores that lie there are of something else.
    changed = (
        ("out", ["--causal", "3"]),
        ("out", ["--forward-batch", "4"]),
        ("a", ["--max-images", "2"]),
        ("b", ["--steps", "31"]),
    )
    for name, others in changed:
        before = len(counted)
        if name != "out":
            shutil.copytree(workplace / "out" / "causal", workplace / name / "causal")
        assert main([*SHORT, "--causal", "3", *others, "--out", name]) == 0
        assert len(counted) == before + 1
    assert counted[2]["n_families"] == 3
    assert counted[4]["max_images"] == 2


def test_a_page_with_a_check_from_its_file(workplace, counted, capsys):
    assert main([*SHORT, "--causal", "2"]) == 0
    page = ["report", "--atlas", "out/atlas", "--orbits", "out/orbits", "--out", "page.html"]
    assert main([*page, "--causal", "out/causal/causal.json"]) == 0
    assert QUESTION in (workplace / "page.html").read_text(encoding="utf-8")
    assert len(counted) == 1
    capsys.readouterr()

    assert main([*SHORT, "--seed", "1", "--out", "other"]) == 0
    page[2] = "other/atlas"
    assert main([*page, "--causal", "out/causal/causal.json"]) == 2
    assert "causal: expected a causal check of this atlas's families" in capsys.readouterr().err
    assert main([*page, "--causal", "out/atlas/atlas.json"]) == 2
    assert "Run the causal check again." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--causal", "-1"], "--causal: expected a whole number"),
        (["--causal", "1", "--orbit", "map"], "--causal: expected --orbit input and a group of three"),
        (["--causal", "1", "--group", "C2"], "got --orbit input --group C2"),
        (["--causal", "1", "--group", "Q8"], "Q8"),
    ],
)
def test_run_refuses_before_the_harvest(workplace, capsys, options, message):
    assert main([*SHORT, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (workplace / "out").exists()


def test_a_group_of_two_without_a_check(workplace):
    assert main([*SHORT, "--group", "C2", "--steps", "2", "--causal", "0"]) == 0


def test_the_demo_checks_three_and_run_none_unless_asked():
    assert build_parser().parse_args(["demo"]).causal == 3
    assert build_parser().parse_args(RUN).causal == 0
