"""Resuming: after a kill at any step, past damaged checkpoints, and what is refused."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import groupcc
from groupcc import GroupCrosscoder
from groupcc.errors import ArgumentError, DataError, GroupccWarning
from groupcc.files import directory_lock
from groupcc.training import initialise, trainer
from helpers.processes import environment
from helpers.training_samples import L, data, make, same, settings

KILLED_RUN = """
    import os, signal, sys
    import torch
    torch.set_num_threads(1)
    import groupcc
    from groupcc.training import checkpoint, trainer as module
    from helpers.training_samples import data, make, settings

    at, in_write = {at}, {in_write}
    if at is not None:
        step = module._Loop.step
        def dying(self, number, log):
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)
            step(self, number, log)
        module._Loop.step = dying
    if in_write is not None:
        original = checkpoint.write_files
        def half(crosscoder, directory):
            original(crosscoder, directory)
            if list(directory.parent.glob(f"step-*{{in_write}}")):
                os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write_files = half
    groupcc.train(make(sparsity={sparsity!r}), data(), settings(out={out!r}))
"""


def run_and_kill(out, sparsity, at=None, in_write=None):
    code = textwrap.dedent(KILLED_RUN).format(at=at, in_write=in_write, sparsity=sparsity, out=str(out))
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("sparsity", "at", "in_write"),
    [("topk", 0, None), ("topk", 23, None), ("topk", None, 14), ("batchtopk", 29, None), ("batchtopk", 39, None)],
)
def test_resumed_after_sigkill_equals_uninterrupted(tmp_path, sparsity, at, in_write):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = groupcc.train(make(sparsity=sparsity), data(), settings(out=tmp_path / "whole"))
        run_and_kill(tmp_path / "killed", sparsity, at, in_write)
        resumed = groupcc.train(make(sparsity=sparsity), data(), settings(out=tmp_path / "killed"))
    finally:
        torch.set_num_threads(threads)
    expected = 14 if in_write else (at // 7 * 7 or None)
    assert resumed.resumed_from == expected
    assert same(whole.crosscoder, resumed.crosscoder)
    assert whole.metrics == resumed.metrics

    def read(name):
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k != "seconds"} for r in records]

    assert read("whole") == read("killed")
    assert [r["step"] for r in read("killed")] == [10, 20, 30, 40]
    kept = sorted(p.name for p in (tmp_path / "killed" / "checkpoints").iterdir())
    assert kept == ["step-000000035", "step-000000040"]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = groupcc.train(make(), data(), settings(out=tmp_path))
    before = (tmp_path / "metrics.jsonl").read_text()
    again = groupcc.train(make(), data(), settings(out=tmp_path))
    assert again.resumed_from == 40
    assert same(first.crosscoder, again.crosscoder)
    assert (tmp_path / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("file", ["crosscoder.safetensors", "optimizer.safetensors", "state.json", "cfg.json"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, file):
    whole = groupcc.train(make(), data(), settings(out=tmp_path))
    newest = tmp_path / "checkpoints" / "step-000000040" / file
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(GroupccWarning, match=r"step-000000040 is passed over"):
        resumed = groupcc.train(make(), data(), settings(out=tmp_path))
    assert resumed.resumed_from == 35
    assert same(whole.crosscoder, resumed.crosscoder)


def test_a_digit_changed_in_a_checkpoint_is_damage(tmp_path):
    groupcc.train(make(), data(), settings(out=tmp_path))
    newest = tmp_path / "checkpoints" / "step-000000040" / "cfg.json"
    newest.write_text(newest.read_text().replace('"dead_after": 200', '"dead_after": 300'))
    with pytest.warns(GroupccWarning, match=r"step-000000040 is passed over: cfg\.json is damaged"):
        assert groupcc.train(make(), data(), settings(out=tmp_path)).resumed_from == 35


def test_a_damaged_checkpoint_ahead_never_outlives_the_good_ones(tmp_path, monkeypatch):
    groupcc.train(make(), data(), settings(out=tmp_path, checkpoint_every=20))
    ahead = tmp_path / "checkpoints" / "step-000000040"
    (ahead / "state.json").write_text("")
    step = trainer._Loop.step

    def interrupted(self, number, log):
        if number == 35:
            raise KeyboardInterrupt
        step(self, number, log)

    monkeypatch.setattr(trainer._Loop, "step", interrupted)
    with pytest.warns(GroupccWarning, match="passed over"), pytest.raises(KeyboardInterrupt):
        groupcc.train(make(), data(), settings(out=tmp_path, checkpoint_every=10, keep=1))
    assert [p.name for p in ahead.parent.iterdir()] == ["step-000000030"]
    monkeypatch.undo()
    assert groupcc.train(make(), data(), settings(out=tmp_path)).resumed_from == 30


def test_checkpoints_and_result_take_raw_activations(tmp_path):
    result = groupcc.train(make(), data(), settings(out=tmp_path, steps=60))
    loaded = GroupCrosscoder.from_pretrained(tmp_path / "crosscoder")
    checkpoint = GroupCrosscoder.from_pretrained(tmp_path / "checkpoints" / "step-000000060")
    assert same(loaded, result.crosscoder)
    assert same(checkpoint, result.crosscoder)
    assert groupcc.evaluate(loaded, data())["fvu"] < 1
    norms = loaded.W_dec.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(L))


def test_other_settings_in_the_same_directory_are_refused(tmp_path):
    groupcc.train(make(), data(), settings(out=tmp_path))
    with pytest.raises(ArgumentError, match="batch_size: expected 32, as in the run at"):
        groupcc.train(make(), data(), settings(out=tmp_path, batch_size=16))
    with pytest.raises(ArgumentError, match="k: expected 2"):
        groupcc.train(make(k=3), data(), settings(out=tmp_path))
    with pytest.raises(ArgumentError, match="orbits: expected the data of the run"):
        groupcc.train(make(), data(seed=1), settings(out=tmp_path))


def test_resuming_does_not_look_for_b_dec_again(monkeypatch, tmp_path):
    first = groupcc.train(make(), data(), settings(out=tmp_path))
    monkeypatch.setattr(initialise, "geometric_median", None)
    assert same(first.crosscoder, groupcc.train(make(), data(), settings(out=tmp_path)).crosscoder)


def test_two_runs_do_not_share_a_directory(tmp_path):
    with (
        directory_lock(tmp_path, "training into it"),
        pytest.raises(DataError, match="another process is training into it"),
    ):
        groupcc.train(make(), data(), settings(out=tmp_path))
    groupcc.train(make(), data(), settings(out=tmp_path))


def test_a_run_from_other_weights_is_resumed_with_a_warning(tmp_path):
    first = groupcc.train(make(), data(), settings(out=tmp_path))
    groupcc.train(first.crosscoder, data(), settings(out=tmp_path))  # its own result: nothing to warn of
    other = make()
    with torch.no_grad():
        other.W_dec.mul_(-1)
    with pytest.warns(
        GroupccWarning, match=r"started from other weights .* from step 40, and these weights are replaced"
    ):
        again = groupcc.train(other, data(), settings(out=tmp_path))
    assert same(again.crosscoder, first.crosscoder)
