"""The file of a causal check: what is written is read back, and nothing else is."""

from __future__ import annotations

import json

import pytest
import torch

from groupcc.analysis import Atlas, analyze
from groupcc.causal import CausalCheck
from groupcc.errors import DataError
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from helpers.report_samples import effect, shape_atlas


@pytest.fixture
def saved(tmp_path):
    effects = [effect(0, "partly"), effect(1, "no", "late")]
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
    "a version to come": lambda text: text.replace('"format_version": 1', '"format_version": 2'),
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
