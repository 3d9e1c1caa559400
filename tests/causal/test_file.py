"""The file of a causal check: what is written is read back, and nothing else is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from groupcc.analysis import Atlas, analyze
from groupcc.causal import CausalCheck
from groupcc.errors import DataError
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from helpers.report_samples import effect, shape_atlas


@pytest.fixture
def saved(tmp_path):
    effects = [effect(0, "undecided"), effect(1, "no", "late")]
    check = CausalCheck(effects, ["90°"], 5, 481, crosscoder="c" * 64, families="f" * 64)
    return check, check.save(tmp_path / "causal.json")


def test_what_is_saved_is_loaded(saved):
    check, path = saved
    assert CausalCheck.load(path) == check
    assert CausalCheck.load(str(path)) == check


DAMAGE = {
    "half of it": lambda text: text[: len(text) // 2],
    "a digit": lambda text: text.replace("0.481", "0.482"),
    "a verdict": lambda text: text.replace('"no"', '"yes"'),
    "a fingerprint": lambda text: text.replace("c" * 64, "d" * 64),
    "a list": lambda text: "[]",
    "an atlas": lambda text: json.dumps({"format": "groupcc-atlas", "format_version": 1}),
    "a version to come": lambda text: text.replace('"format_version": 2', '"format_version": 3'),
    "another version": lambda text: text.replace('"format_version": 2', '"format_version": 1'),
    "one of before": lambda text: json.dumps({"effects": [], "elements": [], "images": 1}),
    "no check sum": lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "sha256"}),
    "no text": lambda text: "\x00",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_and_foreign_files(saved, damage):
    _, path = saved
    text = DAMAGE[damage](path.read_text(encoding="utf-8"))
    assert text != path.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"causal\.json.*[Rr]un .* again"):
        CausalCheck.load(path)


VERSION_1 = {
    "yes": ("undecided", "checked before"),
    "partly": ("undecided", "checked before"),
    "no, below 0": ("no", None),
    "no, by a control": ("undecided", "checked before"),
    "unclear": ("undecided", "checked before"),
    "unclear, no effect": ("not read", None),
    "unclear, never active": ("undecided", "never active on these images"),
    "unclear, the average does as well": ("undecided", "checked before"),
}
"""The effects of version_1.json, which groupcc wrote before place and pose had controls of their own."""


NEW = dict.fromkeys(("placed", "turned", "pose_margin", "pose_margin_error"))


def test_a_file_of_version_1_has_the_verdicts_that_its_numbers_allow(tmp_path):
    file = Path(__file__).parent / "version_1.json"
    written, check = json.loads(file.read_text(encoding="utf-8"))["effects"], CausalCheck.load(file)
    assert (check.elements, check.images, check.crosscoder) == (["90°", "m·90°"], 5, "c" * 64)
    for before, read, (name, (verdict, reason)) in zip(written, check.effects, VERSION_1.items(), strict=True):
        assert before["verdict"] == name.split(",")[0]
        assert read.verdict == verdict, name
        assert (read.reason is None) == (reason is None), name
        assert (read.reason or "").startswith(reason or ""), name
        assert asdict(read) | {"verdict": before["verdict"]} == before | NEW | {"reason": read.reason}
    assert CausalCheck.load(check.save(tmp_path / "again.json")) == check
    assert "used so" in check.text()


def test_a_damaged_file_of_version_1(tmp_path):
    text = (Path(__file__).parent / "version_1.json").read_text(encoding="utf-8")
    (tmp_path / "causal.json").write_text(text.replace("0.481", "0.482"), encoding="utf-8")
    with pytest.raises(DataError, match="is damaged"):
        CausalCheck.load(tmp_path / "causal.json")


def test_a_missing_file_and_a_directory(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(DataError, match="holds no readable causal check"):
            CausalCheck.load(path)


def test_an_atlas_knows_its_weights_and_its_families(tmp_path):
    config = CrosscoderConfig(group="C2", d_in=3, n_latents=4, k=2)
    first, other = (GroupCrosscoder(config, seed=seed) for seed in (0, 1))
    atlas = analyze(first)
    loaded = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert loaded.crosscoder == atlas.crosscoder == first.fingerprint() != other.fingerprint()
    assert loaded.families.fingerprint() == atlas.families.fingerprint()


def test_families_are_told_apart_by_who_is_in_which():
    one, again = (shape_atlas("D4", {"line": 2, "curve": 3}).families for _ in range(2))
    assert one.fingerprint() == again.fingerprint()
    moved = shape_atlas("D4", {"line": 3, "curve": 2}).families
    assert moved.fingerprint() != one.fingerprint()
    assert torch.equal(moved.labels.sort().values, one.labels.sort().values)
