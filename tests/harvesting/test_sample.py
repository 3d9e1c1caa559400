"""`max_images`: a sample that the seed chooses; and stores of a time when these were the first images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from groupcc.errors import ArgumentError, DataError
from groupcc.harvesting import OrbitStore, harvest
from helpers.nets import TinyNet, noise, write_photographs
from helpers.stores import SETTINGS, Interrupted, contents, photograph_folder, run, stop_after

__all__ = ["photograph_folder"]

FEW = {"positions": "random:3"}


def taken(store: OrbitStore) -> list[int]:
    return [index for record in store.index["shards"] for index in record["source_indices"]]


def given(kind: str, folder: Path) -> Any:
    tensor = noise(7, 64, seed=2)
    return {"folder": folder, "tensor": tensor, "generator": iter(tensor), "list": list(tensor)}[kind]


@pytest.mark.parametrize("kind", ["folder", "tensor", "list"])
def test_the_seed_chooses(folder: Path, kind: str) -> None:
    whole = run(given(kind, folder), **FEW)
    samples = set()
    for seed in range(4):
        part = run(given(kind, folder), max_images=3, seed=seed, **FEW)
        chosen = taken(part)
        assert chosen == sorted(set(chosen))
        assert part.image_names == [whole.image_names[i] for i in chosen]
        assert len(part) == 9
        assert part.index["settings"]["sample"] == "seeded"
        samples.add(tuple(chosen))
    assert len(samples) > 2
    # The same image has the same positions and activations in a sample.
    part = run(given(kind, folder), max_images=3, **FEW)
    assert tuple(taken(part)) in samples
    for image, index in enumerate(taken(part)):
        assert torch.equal(part[3 * image : 3 * image + 3], whole[3 * index : 3 * index + 3])


def test_as_many_as_there_are_is_no_sample(folder: Path) -> None:
    for most in (7, 8):
        store = run(folder, max_images=most, **FEW)
        assert taken(store) == list(range(7))
        assert store.index["settings"]["sample"] is None


@pytest.mark.parametrize(
    ("kind", "most", "said"),
    [
        ("folder", 3, "3 of 7 images, a sample that seed 4 chooses"),
        ("generator", 3, "the first 3 images: how many there are isn't known"),
        ("folder", 7, None),
        ("folder", None, None),
    ],
)
def test_a_harvest_says_what_it_takes(
    folder: Path, capsys: pytest.CaptureFixture, kind: str, most: int | None, said: str | None
) -> None:
    store = run(given(kind, folder), max_images=most, seed=4, progress=True, **FEW)
    printed = capsys.readouterr().err
    assert said in printed if said else "sample" not in printed and "the first" not in printed
    assert len(store.image_names) == min(most or 7, 7)


def test_another_is_drawn_in_place_of_an_unusable_image(tmp_path: Path) -> None:
    write_photographs(tmp_path / "images", 7)
    chosen = taken(run(tmp_path / "images", max_images=4, **FEW))
    bad = chosen[1]
    (tmp_path / "images" / f"photo-{bad:02d}.png").write_bytes(b"")
    store = run(tmp_path / "images", max_images=4, **FEW)
    again = taken(store)
    assert again[:3] == [i for i in chosen if i != bad]
    assert again[3] not in chosen
    assert [entry["index"] for entry in store.skipped] == [bad]
    for index in range(6):
        (tmp_path / "images" / f"photo-{index:02d}.png").write_bytes(b"")
    assert taken(run(tmp_path / "images", max_images=4, **FEW)) == [6]
    with pytest.raises(DataError, match=r"2 of \d images can't be used, more than max_skipped=1"):
        run(tmp_path / "images", max_images=4, max_skipped=1, **FEW)


@pytest.mark.parametrize("kind", ["folder", "tensor", "list"])
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_stopped_sample_goes_on(folder: Path, tmp_path: Path, kind: str, stop: int) -> None:
    options = SETTINGS | FEW | {"forward_batch": 8, "max_images": 5}
    net = TinyNet()
    stop_after(stop, net)
    with pytest.raises(Interrupted):
        harvest(net, "body", given(kind, folder), "D4", out=tmp_path / "a", **options)
    harvest(TinyNet(), "body", given(kind, folder), "D4", out=tmp_path / "a", **options)
    harvest(TinyNet(), "body", given(kind, folder), "D4", out=tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_list_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    named = [(f"n{i}", image) for i, image in enumerate(noise(7, 64))]
    options = SETTINGS | FEW | {"forward_batch": 8, "max_images": 5}
    net = TinyNet()
    stop_after(3, net)
    with pytest.raises(Interrupted):
        harvest(net, "body", named, "D4", out=tmp_path / "store", **options)
    with pytest.raises(ArgumentError, match=r"image \d was 'n\d' when .*'n\d' now"):
        harvest(TinyNet(), "body", [*named[1:], named[0]], "D4", out=tmp_path / "store", **options)


def begun_before(store: Path, *, shards: int, cursor: int) -> dict[str, bytes]:
    """Makes of a whole store one of an older groupcc with `max_images` 5, stopped after some shards."""
    index = json.loads((store / "index.json").read_text())
    settings = index["settings"] | {"max_images": 5}
    del settings["sample"]
    left = {"complete": False, "shards": index["shards"][:shards], "cursor": cursor}
    (store / "index.json").write_text(json.dumps(index | {"settings": settings} | left))
    return contents(store)


def test_a_store_of_the_first_images_goes_on_with_the_first(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(folder, tmp_path / "store", **FEW)
    before = begun_before(tmp_path / "store", shards=1, cursor=2)
    for change in ({"max_images": 4}, {"seed": 1, "max_images": 5}, {}):
        with pytest.raises(ArgumentError, match=r"max_images=5; now max_images=|seed=0; now seed=1"):
            run(folder, tmp_path / "store", **FEW, **change)
    assert contents(tmp_path / "store") == before
    store = run(folder, tmp_path / "store", max_images=5, progress=True, **FEW)
    assert taken(store) == list(range(5))
    assert "the first 5 of 7 images, as the store was begun by an older groupcc" in capsys.readouterr().err
    finished = contents(tmp_path / "store")
    run(folder, tmp_path / "store", max_images=5, **FEW)
    assert contents(tmp_path / "store") == finished
