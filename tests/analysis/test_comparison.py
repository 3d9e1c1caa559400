"""Two atlases compared: families planted, turned, removed, added, or made less symmetric are told for what they are."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import groupcc
from groupcc.analysis import KINDS
from groupcc.analysis.compare.result import KIND_WORDS
from groupcc.cli import main
from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from helpers.report_samples import shape_blocks


def dictionary(shapes: list[tuple[str, int, int]], name: str = "D8", width: int = 24, *, tied: bool = False):
    """The crosscoder with latents (shape, mixing seed, element by which it is transformed), and its atlas."""
    G = group(name)
    blocks = [shape_blocks(shape, G, width, seed)[G.right_translation[h]] for shape, seed, h in shapes]
    config = CrosscoderConfig(group=name, d_in=width, n_latents=len(blocks), k=1, encoder="orbit", tied=tied)
    crosscoder = GroupCrosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.from_numpy(np.stack(blocks)))
    return crosscoder, groupcc.analyze(crosscoder, tolerance=0.15)


CURVES = [("curve", 1, h) for h in range(4)]
LINES = [("line", 2, h) for h in range(3)]
SPIRALS = [("spiral", 3, h) for h in range(2)]


def compared(first, second, **options):
    (cc_a, a), (cc_b, b) = first, second
    return groupcc.compare_atlases(a, b, (cc_a, cc_b), **options)


def test_the_same_families_in_another_order_and_turned_are_kept() -> None:
    turned = [(shape, seed, 8 + h) for shape, seed, h in SPIRALS + LINES + CURVES]
    found = compared(dictionary(CURVES + LINES + SPIRALS), dictionary(turned))
    assert found.basis == "decoders"
    assert found.reason is None
    assert found.counts == {"kept": 3, "changed": 0, "vanished": 0, "appeared": 0}
    assert {(p.stabilizer_a, p.stabilizer_b, p.size_a) for p in found.families} == {
        ("D1", "D1", 4),
        ("D2", "D2", 3),
        ("C1", "C1", 2),
    }
    assert all(p.similarity == pytest.approx(1, abs=1e-4) for p in found.families)


def test_what_vanished_and_what_appeared() -> None:
    found = compared(dictionary(CURVES + LINES), dictionary(LINES[:2] + SPIRALS))
    assert found.counts == {"kept": 1, "changed": 0, "vanished": 1, "appeared": 1}
    kept, vanished, appeared = found.families
    assert (kept.size_a, kept.size_b, kept.stabilizer_a) == (3, 2, "D2")
    assert (vanished.family_b, vanished.size_a, vanished.kind_a) == (None, 4, "mirror")
    assert (appeared.family_a, appeared.similarity, appeared.size_b, appeared.kind_b) == (None, None, 2, "undecided")
    assert found.kinds["mirror"] == (4, 0)
    # Under these few rotations nobody can say whether a spiral has a mirror between two elements.
    assert found.kinds["undecided"] == (0, 2)
    assert found.n_families == (2, 2)
    counted = {line[:26].strip(): line[26:].split() for line in found.summary().splitlines()[1:5]}
    assert counted == {
        "repeats every 180°": ["3", "2"],
        "one mirror line": ["4", "0"],
        "undecided": ["0", "2"],
        "families": ["2", "2"],
    }


def test_every_kind_has_words() -> None:
    assert tuple(KIND_WORDS) == KINDS


def test_a_family_that_changes_its_symmetry() -> None:
    """The second dictionary's lines have a part of odd frequency, which half a turn does not leave as it is."""
    G = group("D8")
    first = dictionary(LINES)
    crosscoder, _ = dictionary(LINES)
    odd = shape_blocks("edge", G, 24, 7)
    with torch.no_grad():
        for latent, (_, _, h) in enumerate(LINES):
            crosscoder.W_dec[latent] += 0.7 * torch.from_numpy(odd[G.right_translation[h]]).float()
    found = compared(first, (crosscoder, groupcc.analyze(crosscoder, tolerance=0.15)))
    assert found.counts == {"kept": 0, "changed": 1, "vanished": 0, "appeared": 0}
    (pair,) = found.families
    assert (pair.stabilizer_a, pair.stabilizer_b) == ("D2", "D1")
    assert pair.similarity == pytest.approx(1 / (1 + 0.7**2) ** 0.5, abs=0.02)
    assert "(D2, size 3) is now 0 (D1, size 3)" in found.summary()
    assert compared(first, (crosscoder, groupcc.analyze(crosscoder, tolerance=0.15)), threshold=0.95).counts == {
        "kept": 0,
        "changed": 0,
        "vanished": 1,
        "appeared": 1,
    }


def test_a_change_of_a_stabilizer_in_doubt_is_told_apart() -> None:
    """Three curves and two spirals, each called by the other's stabilizer in the second atlas; one is in doubt."""
    (crosscoder, a), (_, b) = (dictionary(CURVES + SPIRALS) for _ in "ab")
    swapped = [b.stabilizers[-1]] * len(CURVES) + [b.stabilizers[0]] * len(SPIRALS)
    a = dataclasses.replace(a, stabilizers=[dataclasses.replace(s, reason="") for s in a.stabilizers])
    doubts = [""] * len(CURVES) + ["too little data"] * len(SPIRALS)
    called = [dataclasses.replace(s, reason=reason) for s, reason in zip(swapped, doubts, strict=True)]
    b = dataclasses.replace(b, stabilizers=called)
    found = groupcc.compare_atlases(a, b, (crosscoder, crosscoder))
    assert [(p.change, p.size_a, p.doubt_a, p.doubt_b) for p in sorted(found.families, key=lambda p: p.size_a)] == [
        ("changed", 2, None, "too little data"),
        ("changed", 4, None, None),
    ]
    assert "Of the 2 changed, a stabilizer is in doubt in 1." in found.summary()
    assert found.summary().count("is now") == 1


def test_families_are_paired_one_to_one_for_the_largest_sum() -> None:
    """The nearest pair of all is a's first and b's second, 20° apart; taking it would leave the others without."""
    G = group("D8")
    one, two = shape_blocks("spiral", G, 24, 1), shape_blocks("spiral", G, 24, 2)
    sides = []
    for degrees in ((0, 60), (-25, 20)):
        crosscoder, _ = dictionary([("spiral", 0, 0)] * 2)
        mixed = [one * math.cos(math.radians(d)) + two * math.sin(math.radians(d)) for d in degrees]
        with torch.no_grad():
            crosscoder.W_dec.copy_(torch.from_numpy(np.stack(mixed)))
        sides.append((crosscoder, groupcc.analyze(crosscoder, tolerance=0.15, family_threshold=0.999)))
    found = compared(*sides, threshold=0.3)
    references = [atlas.families.references for _, atlas in sides]
    matched = {(references[0][p.family_a], references[1][p.family_b]) for p in found.families}
    assert matched == {(0, 0), (1, 1)}


def test_tied_with_untied() -> None:
    found = compared(dictionary(CURVES + SPIRALS), dictionary([("curve", 1, 3), ("line", 2, 0)], tied=True))
    assert found.counts == {"kept": 1, "changed": 0, "vanished": 1, "appeared": 1}
    assert found.families[0].size_b == 8


def test_where_only_counts_can_be_compared_the_reason_is_told() -> None:
    first = dictionary(CURVES)
    reasons = {}
    for name, second in {
        "group": dictionary(CURVES, "D4"),
        "width": dictionary(CURVES, width=30),
        "layer": dictionary(CURVES),
    }.items():
        first[0].provenance = {"model": "net", "layer": "3a"}
        second[0].provenance = {"model": "net", "layer": "3b" if name == "layer" else "3a"}
        found = compared(first, second)
        assert (found.basis, found.families) == ("counts", [])
        reasons[name] = found.reason
        assert f"Families were not matched: {found.reason}" in found.summary()
    mend = (
        " To match families by what they fire for, give the orbits of both: orbits=(store_a, store_b), or "
        "--orbits DIR_A DIR_B."
    )
    assert reasons == {
        "group": "the groups differ, D8 and D4. Run both under one group.",
        "width": "the layers differ in width, 24 and 30." + mend,
        "layer": "the decoders are of different layers, 3a and 3b, and write into different spaces." + mend,
    }
    assert "not given" in str(groupcc.compare_atlases(first[1], first[1]).reason)


def test_nothing_alive() -> None:
    crosscoder, _ = dictionary(CURVES)
    with torch.no_grad():
        crosscoder.W_dec.zero_()
    found = compared(dictionary(CURVES), (crosscoder, groupcc.analyze(crosscoder)))
    assert found.counts == {"kept": 0, "changed": 0, "vanished": 1, "appeared": 0}
    assert found.kinds["dead"] == (0, 4)


def test_wrong_arguments() -> None:
    first, second = dictionary(CURVES), dictionary(CURVES + LINES)
    with pytest.raises(ArgumentError, match="crosscoders: expected the one that atlas a was made from"):
        groupcc.compare_atlases(first[1], second[1], (second[0], first[0]))
    for threshold in (0, 1.5, float("nan")):
        with pytest.raises(ArgumentError, match="threshold"):
            compared(first, second, threshold=threshold)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (crosscoder, atlas) in {"a": dictionary(CURVES + LINES), "b": dictionary(LINES)}.items():
        crosscoder.save_pretrained(tmp_path / name / "crosscoder" / "crosscoder")
        atlas.save(tmp_path / name / "atlas")
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["compare", a, b, "--out", str(tmp_path / "c.csv")]) == 0
    printed = capsys.readouterr().out
    assert "1 kept, 0 changed, 1 vanished, 0 appeared" in printed
    with (tmp_path / "c.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["change"], row["size_a"], row["size_b"]) for row in rows] == [
        ("kept", "3", "3"),
        ("vanished", "4", ""),
    ]
    assert main(["compare", f"{a}/atlas", b, "--out", str(tmp_path / "c.json")]) == 0
    assert "Families were not matched: the crosscoders were not given" in capsys.readouterr().out
    assert json.loads((tmp_path / "c.json").read_text()) == []
    assert main(["compare", a, b, "--out", str(tmp_path / "c.txt")]) == 2
    assert "ends in .csv or .json" in capsys.readouterr().err


def test_pairs_are_plain() -> None:
    pair = compared(dictionary(CURVES), dictionary(CURVES)).table()[0]
    assert json.loads(json.dumps(pair)) == pair
    assert dataclasses.is_dataclass(groupcc.analysis.FamilyPair)
