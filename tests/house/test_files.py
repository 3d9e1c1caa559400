"""Writing directories in one rename: what may be replaced, and what must never be lost."""

import pytest
import torch

import groupcc
from groupcc.errors import ArgumentError
from groupcc.files import atomic_directory, atomic_write, save_tensors


def write(target, content="new"):
    with atomic_directory(target, own=("ours.txt",)) as folder:
        (folder / "ours.txt").write_text(content)


def test_a_new_directory_and_one_of_ours_are_written(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("fresh", "empty", "fresh"):
        write(tmp_path / name, name)
        assert (tmp_path / name / "ours.txt").read_text() == name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "fresh"]


def test_the_current_directory_can_be_the_target(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(".")
    assert (tmp_path / "here" / "ours.txt").read_text() == "new"


def test_a_directory_with_other_files_is_refused_and_kept(tmp_path):
    (tmp_path / "ours.txt").write_text("old")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("x")
    with pytest.raises(ArgumentError, match=r"directory: expected a new or empty directory.*thesis.*would be lost"):
        write(tmp_path)
    assert (tmp_path / "ours.txt").read_text() == "old"
    assert (tmp_path / "thesis" / "chapter").read_text() == "x"


def test_a_file_is_refused_and_kept(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArgumentError, match="a file"):
        write(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "x"
    assert len(list(tmp_path.iterdir())) == 1


def test_tensors_that_cannot_be_written_are_an_os_error(tmp_path):
    with pytest.raises(OSError, match=r"nowhere.weights\.safetensors"):
        save_tensors({"a": torch.zeros(3)}, tmp_path / "nowhere" / "weights.safetensors")


def test_crosscoders_and_atlases_keep_to_their_own_directories(tmp_path):
    config = groupcc.CrosscoderConfig(group="C2", d_in=3, n_latents=4, k=2)
    crosscoder = groupcc.GroupCrosscoder(config)
    atlas = groupcc.analyze(crosscoder)
    crosscoder.save_pretrained(tmp_path / "crosscoder")
    crosscoder.save_pretrained(tmp_path / "crosscoder")
    for save in (crosscoder.save_pretrained, atlas.save):
        with pytest.raises(ArgumentError, match="crosscoder"):
            save(tmp_path)
    with pytest.raises(ArgumentError, match=r"cfg\.json"):
        atlas.save(tmp_path / "crosscoder")
    atlas.save(tmp_path / "atlas")
    atlas.write_table(tmp_path / "atlas" / "table.csv")
    atlas.save(tmp_path / "atlas")
    groupcc.GroupCrosscoder.from_pretrained(tmp_path / "crosscoder")


def test_what_killed_writers_left_is_cleared_and_nothing_else(tmp_path):
    for name in (".run.k1ll3d.tmp", ".run.k1ll3d.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_text("x")
    (tmp_path / ".page.html.123.tmp").write_text("half")
    kept = [".run", ".runs.abc.tmp", ".page.html", "run.abc.tmp", ".run.a.b.tmp"]
    for name in kept:
        (tmp_path / name).write_text("mine")
    write(tmp_path / "run")
    atomic_write(tmp_path / "page.html", "page")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*kept, "run", "page.html"])
