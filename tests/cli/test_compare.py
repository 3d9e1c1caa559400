"""groupcc compare on two runs of the bundled net, from photographs to the table."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from groupcc.cli import main
from groupcc.cli.demo import crops


@pytest.fixture(scope="module", name="runs")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "images").mkdir()
    for name, pixels in crops():
        Image.fromarray(pixels).save(folder / "images" / f"{name}.png")
    for layer in ("mixed3a", "mixed3b"):
        argv = [
            "run", "--model", "bundled", "--layer", layer, "--images", str(folder / "images"), "--group", "D4",
            "--input-size", "97", "--latents", "48", "--k", "4", "--encoder", "orbit", "--steps", "150",
            "--batch-size", "64", "--init-decoder", "examples", "--lr", "1e-3", "--out", str(folder / layer),
        ]  # fmt: skip
        assert main(argv) == 0
    return folder


def compare(runs: Path, *options: str, to: str = "found.csv") -> list[dict[str, str]]:
    names = [str(runs / layer) for layer in ("mixed3a", "mixed3b")]
    assert main(["compare", *names, "--out", str(runs / to), *options]) == 0
    with (runs / to).open() as file:
        return list(csv.DictReader(file))


def test_two_layers_are_matched_by_what_fires(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = compare(runs)
    printed = capsys.readouterr().out
    assert "Not by the decoders: the decoders are of different layers, mixed3a and mixed3b" in printed
    assert "of 25 images (correlation" in printed
    told = [row["change"] for row in rows]
    matched = [row for row in rows if row["change"] in ("kept", "changed")]
    assert len(matched) >= 5
    assert all(int(row["places_a"]) >= 10 and int(row["places_b"]) >= 10 for row in matched)
    assert {"kept", "vanished", "appeared"} <= set(told)
    for side in "ab":
        families = [int(row[f"family_{side}"]) for row in rows if row[f"family_{side}"]]
        assert sorted(families) == list(range(len(families)))


def test_stores_from_elsewhere_and_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = compare(runs)
    capsys.readouterr()
    for layer in ("mixed3a", "mixed3b"):
        shutil.move(runs / layer / "orbits", runs / f"{layer} orbits")
    try:
        assert compare(runs, to="none.csv") == []
        printed = capsys.readouterr().out
        assert "give the orbits of both: orbits=(store_a, store_b), or --orbits DIR_A DIR_B." in printed
        where = [str(runs / layer / "orbits") for layer in ("mixed3a", "mixed3b")]
        assert f"There are no orbits in {where[0]} and {where[1]}." in printed
        given = [str(runs / f"{layer} orbits") for layer in ("mixed3a", "mixed3b")]
        assert compare(runs, "--orbits", *given, to="given.csv") == rows
        names = [str(runs / layer) for layer in ("mixed3a", "mixed3b")]
        assert main(["compare", *names, "--orbits", *reversed(given)]) == 2
        assert "orbits: expected" in capsys.readouterr().err
        assert main(["compare", *names, "--basis", "activations"]) == 2
        assert "basis: expected activations of both" in capsys.readouterr().err
    finally:
        for layer in ("mixed3a", "mixed3b"):
            shutil.move(runs / f"{layer} orbits", runs / layer / "orbits")


def test_decoders_need_no_orbits_and_atlases_can_have_none(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    index = runs / "mixed3a" / "orbits" / "index.json"
    whole = index.read_text()
    index.write_text("{")
    try:
        assert main(["compare", str(runs / "mixed3a"), str(runs / "mixed3a")]) == 0
        assert main(["compare", str(runs / "mixed3a"), str(runs / "mixed3b")]) == 2
        assert "is not the index of an orbit store" in capsys.readouterr().err
    finally:
        index.write_text(whole)
    assert main(["compare", str(runs / "mixed3a"), str(runs / "mixed3b" / "atlas")]) == 0
    printed = capsys.readouterr().out
    assert "Families were not matched: the crosscoders were not given" in printed
    assert "no orbits" not in printed


def test_one_layer_keeps_to_the_decoders(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", str(runs / "mixed3a"), str(runs / "mixed3a")]
    assert main(argv) == 0
    assert "matched by their decoders (similarity 0.75 or more)" in capsys.readouterr().out
    assert main([*argv, "--basis", "activations"]) == 0
    printed = capsys.readouterr().out
    assert "matched by what they fire for" in printed
    assert " 0 changed, 0 vanished, 0 appeared" in printed
