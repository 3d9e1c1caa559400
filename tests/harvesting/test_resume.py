"""The harvest stopped at any point and gone on with."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from groupcc.errors import DataError
from groupcc.files import write_json
from groupcc.harvesting import OrbitStore, harvest
from groupcc.harvesting import writer as writer_module
from helpers.nets import TinyNet, noise, write_photographs
from helpers.processes import environment
from helpers.stores import SETTINGS, Interrupted, contents, photograph_folder, run, stop_after

__all__ = ["photograph_folder"]


def test_a_finished_store_is_returned_untouched(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(folder, tmp_path / "store")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    again = harvest(TinyNet(), "body", folder, "D4", out=tmp_path / "store", **(SETTINGS | {"progress": True}))
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before
    assert len(again.image_names) == 7
    assert "nothing to do" in capsys.readouterr().err


def test_what_will_be_done_is_said_before_it_starts(folder: Path, capsys: pytest.CaptureFixture) -> None:
    store = run(folder, progress=True)
    said = capsys.readouterr().err
    P = store.positions_per_image
    assert "map pixel u is centred on input pixel 4u + 1, receptive field 13" in said
    assert f"{P} of 196 positions are inside the safe disc (radius" in said
    assert f"7 images x {P} positions x 8 elements x 5 channels: {7 * P * 8 * 5 * 2 / 1e3:.1f} kB as float16" in said
    assert said.index("7 images x") < said.index("7/7")


KILLED = """
import sys, torch
torch.set_num_threads(int(sys.argv[3]))
from helpers.nets import TinyNet
from groupcc.harvesting import harvest
harvest(TinyNet(), "body", sys.argv[1], "D4", out=sys.argv[2], input_size=56, progress=False, shard_images=2)
"""


def test_sigkill_and_resume_equals_uninterrupted(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), str(out), str(torch.get_num_threads())],
        env=environment(TINY_NET_DELAY="0.05"),
    )
    deadline = time.monotonic() + 120
    while not (out / "acts-00001.bin").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    recorded = json.loads((out / "index.json").read_text())
    assert not recorded["complete"]
    assert 1 <= len(recorded["shards"]) < 4
    with pytest.raises(DataError, match="unfinished"):
        OrbitStore.open(out)
    (out / ".acts-00003.bin.tmp").write_bytes(b"half")
    names = [part["file"] for record in recorded["shards"] for part in record["files"].values()]
    before = {name: (out / name).stat().st_mtime_ns for name in names}

    resumed = run(folder, out)
    assert {name: (out / name).stat().st_mtime_ns for name in names} == before
    run(folder, tmp_path / "uninterrupted")
    assert contents(out) == contents(tmp_path / "uninterrupted")
    assert len(resumed.image_names) == 7


def test_shards_are_on_disk_before_the_index_that_names_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names too: the directory is synced between the renames of the shard's files and that of the index."""
    events: list[str] = []
    replace, fsync = os.replace, os.fsync

    def watched_replace(source: Any, target: Any) -> None:
        events.append(Path(target).name)
        replace(source, target)

    def watched_fsync(descriptor: int) -> None:
        events.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    monkeypatch.setattr(os, "replace", watched_replace)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    run(folder, tmp_path / "store")
    for shard in range(4):
        for part in ("acts", "canvas", "positions"):
            name = f"{part}-{shard:05d}.bin"
            at = events.index(name)
            until_index = events[at : events.index("index.json", at)]
            assert events[at - 1] == "sync file", name
            assert "sync directory" in until_index, name


def test_stopped_between_a_shard_and_its_index(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shard that no index names is written again; nothing of it is counted twice."""
    written = 0

    def stop(path: Path, value: Any) -> None:
        nonlocal written
        written += 1
        if written == 3:  # the empty store's, the first shard's, and now the second's
            raise Interrupted
        write_json(path, value)

    monkeypatch.setattr(writer_module, "write_json", stop)
    out = tmp_path / "store"
    with pytest.raises(Interrupted):
        run(folder, out)
    monkeypatch.undo()
    assert (out / "positions-00001.bin").exists()
    assert len(json.loads((out / "index.json").read_text())["shards"]) == 1
    run(folder, out)
    run(folder, tmp_path / "uninterrupted")
    assert contents(out) == contents(tmp_path / "uninterrupted")


@pytest.mark.parametrize("kind", ["folder", "tensor", "generator", "list"])
@pytest.mark.parametrize("stop", [1, 3, 6])
def test_an_error_at_any_image_and_resume(folder: Path, tmp_path: Path, kind: str, stop: int) -> None:
    def images() -> object:
        tensor = noise(7, 64, seed=2)
        return {"folder": folder, "tensor": tensor, "generator": iter(tensor), "list": list(tensor)}[kind]

    options = SETTINGS | {"input_size": 56, "forward_batch": 8, "positions": "random:4"}
    net = TinyNet()
    stop_after(stop, net)
    with pytest.raises(Interrupted):
        harvest(net, "body", images(), "D4", out=tmp_path / "a", **options)
    assert len(json.loads((tmp_path / "a" / "index.json").read_text())["shards"]) == stop // 2
    harvest(TinyNet(), "body", images(), "D4", out=tmp_path / "a", **options)
    harvest(TinyNet(), "body", images(), "D4", out=tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_skipped_images_survive_a_resume(tmp_path: Path) -> None:
    write_photographs(tmp_path / "images", 7)
    for index in (0, 2, 5):
        (tmp_path / "images" / f"photo-{index:02d}.png").write_bytes(b"")
    options = SETTINGS | {"forward_batch": 8}
    net = TinyNet()
    stop_after(3, net)
    with pytest.raises(Interrupted):
        harvest(net, "body", tmp_path / "images", "D4", out=tmp_path / "a", **options)
    store = harvest(TinyNet(), "body", tmp_path / "images", "D4", out=tmp_path / "a", **options)
    assert [entry["index"] for entry in store.skipped] == [0, 2, 5]
    harvest(TinyNet(), "body", tmp_path / "images", "D4", out=tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
