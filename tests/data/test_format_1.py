"""Files of format 1 of crosscoders, and the atlas and the store of that time, are read as they were meant.

`make_format_1.py` wrote tests/data/format_1 with the last version that wrote format 1.
"""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import groupcc
from groupcc import GroupCrosscoder
from groupcc.errors import ArgumentError, DataError
from groupcc.files import read_json, sha256_file, write_json
from groupcc.training import checkpoint

HERE = Path(__file__).with_name("format_1")
KINDS = sorted(path.name for path in HERE.iterdir() if (path / "crosscoder").is_dir())
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def orbits():
    """As make_format_1.py draws them."""
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(9, 30, generator=generator)
    acts = torch.zeros(120, 9).scatter_(1, torch.rand(120, 9, generator=generator).topk(2, 1).indices, 1.0)
    return 4 * (acts @ atoms).view(120, 6, 5) + 1


def test_every_form_and_sparsity_of_that_time_is_there():
    assert len(KINDS) == 6
    configs = [read_json(HERE / kind / "crosscoder" / "cfg.json") for kind in KINDS]
    assert {config["format_version"] for config in configs} == {1}
    assert {config["config"]["sparsity"] for config in configs} == {"topk", "batchtopk", "l1"}
    assert {config["config"]["tied"] for config in configs} == {False, True, "residual"}
    assert {config["config"]["encoder"] for config in configs} == {"identity", "orbit"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_crosscoder_computes_what_it_computed(kind):
    made = GroupCrosscoder.from_pretrained(HERE / kind / "crosscoder")
    expected = load_file(HERE / kind / "expected.safetensors")
    acts = orbits()[:8]
    assert torch.equal(made.W_enc, expected["W_enc"].permute(2, 0, 1))
    for name in ("W_dec", "b_enc", "b_dec"):
        assert torch.equal(getattr(made, name), expected[name])
    with groupcc.use_backend("reference"), torch.no_grad():
        latents = made.encode(acts)
        torch.testing.assert_close(made.pre_acts(acts), expected["pre_acts"], **CLOSE)
        torch.testing.assert_close(latents.acts, expected["latent_acts"], **CLOSE)
        torch.testing.assert_close(made.decode(latents), expected["decoded"], **CLOSE)
    active = expected["latent_acts"] > 0
    assert active.any()
    assert torch.equal(latents.indices[active], expected["latent_indices"][active])
    assert (latents.poses is None) == ("poses" not in expected)
    if latents.poses is not None:
        assert torch.equal(latents.poses[active], expected["poses"][active])


@pytest.mark.parametrize("kind", KINDS)
def test_a_crosscoder_keeps_its_fingerprint_in_either_format(kind, tmp_path):
    recorded = (HERE / kind / "fingerprint.txt").read_text()
    made = GroupCrosscoder.from_pretrained(HERE / kind / "crosscoder")
    assert made.fingerprint() == recorded
    folder = made.save_pretrained(tmp_path / "again")
    assert read_json(folder / "cfg.json")["format_version"] == 2
    stored = load_file(folder / "crosscoder.safetensors")["W_enc"]
    assert torch.equal(stored, load_file(HERE / kind / "expected.safetensors")["W_enc"].permute(2, 0, 1))
    again = GroupCrosscoder.from_pretrained(folder)
    assert again.fingerprint() == recorded
    assert again.config == made.config
    assert again.provenance == made.provenance


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_recorded_weights(kind, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(HERE / kind / "stopped", run)
    settings = groupcc.TrainConfig(
        augment=False,
        resample_every=0,
        steps=30,
        out=run,
        batch_size=20,
        progress=False,
        checkpoint_every=15,
        keep=1,
        lr=3e-3,
    )
    finished = GroupCrosscoder.from_pretrained(HERE / kind / "crosscoder")
    result = groupcc.train(GroupCrosscoder(finished.config, seed=1), orbits(), settings)
    assert result.resumed_from == 15
    for name, expected in finished.state_dict().items():
        torch.testing.assert_close(result.crosscoder.state_dict()[name], expected, rtol=1e-3, atol=1e-4, msg=name)
    recorded = finished.provenance["metrics"]
    for name in ("fvu", "l0", "dead_fraction"):
        assert result.metrics[name] == pytest.approx(recorded[name], rel=1e-3)
    # The moments of W_enc came along: without them 15 steps end elsewhere.
    newest = checkpoint.newest(run / "checkpoints")
    assert newest.state["step"] == 30
    assert newest.training["exp_avg.W_enc"].shape == result.crosscoder.W_enc.shape


@pytest.mark.parametrize("kind", KINDS)
def test_the_optimizers_state_is_turned_with_the_weights(kind):
    folder = HERE / kind / "stopped" / "checkpoints"
    found = checkpoint.newest(folder)
    stored = load_file(found.path / "optimizer.safetensors")
    for slot in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(found.training[f"{slot}.W_enc"], stored[f"{slot}.W_enc"].permute(2, 0, 1))
    others = [name for name in stored if not name.endswith(".W_enc") or name.startswith("step.")]
    assert len(others) == len(stored) - 2
    assert all(torch.equal(found.training[name], stored[name]) for name in others)


def test_a_stopped_run_refuses_other_settings(tmp_path):
    shutil.copytree(HERE / "untied_orbit_topk" / "stopped", tmp_path / "run")
    finished = GroupCrosscoder.from_pretrained(HERE / "untied_orbit_topk" / "crosscoder")
    then = {"augment": False, "resample_every": 0}  # the defaults of that time
    settings = groupcc.TrainConfig(steps=30, out=tmp_path / "run", batch_size=20, progress=False, lr=1e-3, **then)
    with pytest.raises(ArgumentError, match=r"lr: expected 0\.003, as in the run at"):
        groupcc.train(GroupCrosscoder(finished.config, seed=1), orbits(), settings)


@pytest.mark.parametrize("version", [0, 3, 99, "2", None])
def test_other_versions_are_refused(version, tmp_path):
    folder = tmp_path / "c"
    shutil.copytree(HERE / "untied_orbit_topk" / "crosscoder", folder)
    write_json(folder / "cfg.json", read_json(folder / "cfg.json") | {"format_version": version})
    with pytest.raises(DataError, match=rf"format {version} of GroupCrosscoder; this groupcc reads formats 1 and 2"):
        GroupCrosscoder.from_pretrained(folder)


def test_weights_in_the_other_formats_layout_are_refused(tmp_path):
    """The version says which layout a file has; sizes tell when it lies."""
    folder = tmp_path / "c"
    shutil.copytree(HERE / "untied_orbit_topk" / "crosscoder", folder)
    weights = load_file(folder / "crosscoder.safetensors")
    save_file(weights | {"W_enc": weights["W_enc"].permute(2, 0, 1).contiguous()}, folder / "crosscoder.safetensors")
    header = read_json(folder / "cfg.json") | {"weights_sha256": sha256_file(folder / "crosscoder.safetensors")}
    write_json(folder / "cfg.json", header)
    with pytest.raises(DataError, match="W_enc"):
        GroupCrosscoder.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["untied_orbit_topk", "tied_orbit_nms"])
def test_atlas_and_table_are_of_the_crosscoder_that_is_read(kind):
    atlas = groupcc.Atlas.load(HERE / kind / "atlas")
    assert atlas.crosscoder == GroupCrosscoder.from_pretrained(HERE / kind / "crosscoder").fingerprint()
    recorded = json.loads((HERE / kind / "table.json").read_text())
    rows = json.loads(json.dumps(atlas.table()))
    assert len(rows) == len(recorded) > 0
    # Labels were then read off the decoder alone, and their doubts were found anew for each table.
    renamed = {"confidence": "stability"}
    for row, was in zip(rows, recorded, strict=True):
        for column, value in was.items():
            if column in ("unclear", "near_miss", "agreement"):
                continue
            column = renamed.get(column, column)
            alike = row[column] == value or (isinstance(value, float) and math.isclose(row[column], value))
            assert alike, (column, row[column], value)


def test_the_store_is_read():
    store = groupcc.OrbitStore.open(HERE / "store" / "orbits")
    store.verify()
    expected = load_file(HERE / "store" / "expected.safetensors")["acts"]
    assert torch.equal(store.take(torch.arange(len(store))), expected)
