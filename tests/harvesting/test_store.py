"""The store: what it gives back and what it refuses."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from groupcc.errors import ArgumentError, DataError
from groupcc.groups import as_action
from groupcc.harvesting import OrbitStore, harvest
from groupcc.harvesting import space as space_module
from groupcc.views import Lattice
from helpers.nets import TinyNet, noise, unbiased_net, write_photographs
from helpers.stores import SETTINGS, Interrupted, contents, photograph_folder, run, stop_after

__all__ = ["photograph_folder"]


def test_memory_and_disk_hold_the_same(folder: Path, tmp_path: Path) -> None:
    memory, disk = run(folder), run(folder, tmp_path / "store")
    again = OrbitStore.open(tmp_path / "store")
    again.verify()
    assert again.shape == (len(memory), 8, 5)
    assert len(memory) == 7 * memory.positions_per_image
    for store in (disk, again):
        assert torch.equal(store[:], memory[:])
        assert store.image_names == memory.image_names
        assert all(np.array_equal(store.canvas(i), memory.canvas(i)) for i in range(7))
        assert [store.positions_of(i) for i in range(0, len(store), 5)] == [
            memory.positions_of(i) for i in range(0, len(store), 5)
        ]
        assert (store.group.name, store.layer, store.model_name, store.d_in) == ("D4", "body", "TinyNet", 5)
        assert store.lattice == Lattice(4, 1, 13, (14, 14))
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == sorted(
        ["index.json", *[f"{part}-{n:05d}.bin" for part in ("acts", "canvas", "positions") for n in range(4)]]
    )


def test_indexing_and_take(folder: Path) -> None:
    store = run(folder)
    everything = store[:]
    assert everything.dtype == torch.float32
    assert torch.equal(store[5], everything[5])
    assert torch.equal(store[-1], everything[-1])
    assert torch.equal(store[3:200:7], everything[3:200:7])
    chosen = torch.randperm(len(store), generator=torch.Generator().manual_seed(0))[:50]
    for indices in (chosen, chosen.numpy(), chosen.tolist()):
        assert torch.equal(store.take(indices), everything[chosen])
    assert torch.equal(store[chosen], everything[chosen])
    mask = store.image_ids == 3
    assert torch.equal(store.take(mask), everything[mask])
    assert store.take([]).shape == (0, 8, 5)
    for wrong in (len(store), -len(store) - 1):
        with pytest.raises(IndexError):
            store[wrong]
    with pytest.raises(ArgumentError, match="indices"):
        store.take([0.5])


def test_batches_are_one_epoch_in_an_order_that_the_seed_decides(folder: Path) -> None:
    store = run(folder)
    batches = list(store.batches(100, seed=4))
    assert [len(batch) for batch in batches[:-1]] == [100] * (len(batches) - 1)
    seen = torch.cat(batches)
    assert not torch.equal(seen, store[:])
    order = torch.randperm(len(store), generator=torch.Generator().manual_seed(4))
    assert torch.equal(seen, store[:][order])
    assert torch.equal(torch.cat(list(store.batches(100, seed=4, start=2))), seen[200:])
    assert not torch.equal(torch.cat(list(store.batches(100, seed=5))), seen)
    some = torch.arange(10, 20)
    assert {tuple(row.flatten().tolist()) for row in store[10:20]} == {
        tuple(row.flatten().tolist()) for row in torch.cat(list(store.batches(3, seed=0, indices=some)))
    }
    with pytest.raises(ArgumentError, match="batch_size"):
        next(store.batches(0, seed=0))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 8e-3), (torch.float32, 0)])
def test_storage_dtypes(tmp_path: Path, dtype: Any, tolerance: float) -> None:
    images, options = noise(2, 64), SETTINGS | {"input_size": None}
    exact = harvest(unbiased_net(), "body", images, "D4", dtype="float32", **options)
    store = harvest(unbiased_net(), "body", images, "D4", dtype=dtype, out=tmp_path / "store", **options)
    assert torch.allclose(store[:], exact[:], rtol=tolerance, atol=tolerance * 1e-2)
    size = (tmp_path / "store" / "acts-00000.bin").stat().st_size
    assert size == len(store) * 8 * 5 * (4 if dtype == torch.float32 else 2)


def test_what_float16_cannot_hold_is_an_error_that_names_the_image(folder: Path) -> None:
    net = TinyNet()
    net.second.weight.data *= 1e6
    with pytest.raises(DataError, match=r"photo-00.png.*too large for float16.*dtype=\"float32\""):
        harvest(net, "body", folder, "D4", **SETTINGS)
    assert len(harvest(net, "body", folder, "D4", dtype="float32", **SETTINGS))


def test_examples_and_patches_show_what_the_network_saw(folder: Path) -> None:
    store = run(folder)
    i = len(store) // 2 + 3
    example = store.example(i)
    assert example.name == store.image_names[example.image_id]
    assert example.position == store.positions_of(i)
    x, y = (round(value) for value in example.xy)
    assert store.patch(i).shape == (15, 15, 3)
    canvas = torch.from_numpy(store.canvas(example.image_id)).permute(2, 0, 1)[None].float()
    geometry = store.geometry
    for g in range(8):
        turned = as_action(store.group).transform(canvas, [g], geometry.frame)[0, 0]
        offset = np.array(example.position) - geometry.map_pivot
        u, v = np.rint(geometry.input_pivot + 4 * store.group.matrices[g] @ offset).astype(int)
        patch = store.patch(i, g, size=9)
        seen = turned[:, v - 4 : v + 5, u - 4 : u + 5].permute(1, 2, 0)
        assert np.abs(patch - seen.numpy()).max() <= 0.51
    upright = store.canvas(example.image_id)[y - 4 : y + 5, x - 4 : x + 5].astype(float)
    assert np.corrcoef(store.patch(i, 0, size=9).ravel(), upright.ravel())[0, 1] > 0.6


def test_random_positions_depend_on_seed_and_image_alone(tmp_path: Path) -> None:
    write_photographs(tmp_path / "a", 4)
    write_photographs(tmp_path / "b", 4)
    (tmp_path / "b" / "photo-01.png").write_bytes(b"")
    first, second, other = (
        run(tmp_path / name, positions="random:9", seed=seed) for name, seed in (("a", 0), ("b", 0), ("a", 1))
    )
    places = [[store.positions_of(i) for i in range(len(store))] for store in (first, second, other)]
    assert len(first) == 36
    assert len(set(places[0][:9])) == 9
    assert places[0][:9] != places[0][9:18]
    assert places[0][18:] == places[1][9:]  # the skipped second image shifts nothing
    assert places[0] != places[2]


def test_max_images_and_small_batches_change_nothing_else(folder: Path) -> None:
    store = run(folder, dtype="float32")
    part = run(folder, dtype="float32", max_images=3, forward_batch=3)
    taken = part.index["shards"][0]["source_indices"] + part.index["shards"][1]["source_indices"]
    assert part.image_names == [store.image_names[i] for i in taken]
    of_part = torch.isin(store.image_ids, torch.tensor(taken))
    assert torch.allclose(part[:], store.take(of_part), atol=1e-6)
    across = run(folder, dtype="float32", forward_batch=24)  # 3 images a pass, 2 a shard
    assert across.image_names == store.image_names
    assert [record["images"] for record in across.index["shards"]] == [2, 2, 2, 1]
    assert torch.allclose(across[:], store[:], atol=1e-6)
    one_map = run(folder, dtype="float32", orbit="map", forward_batch=5, shard_images=None)
    assert torch.allclose(one_map[:][:, 0], store[:][:, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"positions": "centre"}, "positions='all'; now positions='centre'"),
        ({"seed": 1}, "seed=0; now seed=1"),
        ({"dtype": "float32"}, "dtype="),
        ({"orbit": "map"}, "orbit='input'; now orbit='map'"),
        ({"interpolation": "bilinear"}, "interpolation="),
        ({"preprocess": (0.5, 0.5, 0.5)}, None),
        ({"preprocess": ((0.5,) * 3, (0.2,) * 3)}, "preprocess=None"),
        ({"input_size": 60}, "input_size="),
        ({"margin": 2}, "margin="),
        ({"max_images": 3}, "max_images="),
    ],
)
def test_other_settings_in_the_same_directory(
    folder: Path, tmp_path: Path, change: dict[str, Any], named: str | None
) -> None:
    run(folder, tmp_path / "store")
    before = contents(tmp_path / "store")
    with pytest.raises(ArgumentError, match=named):
        run(folder, tmp_path / "store", **change)
    assert contents(tmp_path / "store") == before


def test_other_weights_images_or_group_in_the_same_directory(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    run(folder, out)
    net = TinyNet()
    net.head.bias.data += 1
    with pytest.raises(ArgumentError, match="fingerprint"):
        harvest(net, "body", folder, "D4", out=out, **SETTINGS)
    with pytest.raises(ArgumentError, match="group='D4'; now group='C4'"):
        harvest(TinyNet(), "body", folder, "C4", out=out, **SETTINGS)
    write_photographs(tmp_path / "others", 8)
    with pytest.raises(ArgumentError, match="images="):
        run(tmp_path / "others", out)


def test_a_list_whose_names_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    named = [(f"n{i}", image) for i, image in enumerate(noise(7, 64))]
    net = TinyNet()
    stop_after(3, net)
    options = SETTINGS | {"forward_batch": 8}
    with pytest.raises(Interrupted):
        harvest(net, "body", named, "D4", out=tmp_path / "store", **options)
    with pytest.raises(ArgumentError, match=r"image 0 was 'n0'.*'n1' now"):
        harvest(TinyNet(), "body", [*named[1:], named[0]], "D4", out=tmp_path / "store", **options)


def test_a_directory_with_other_things_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(ArgumentError, match=r"thesis\.tex"):
        run(folder, tmp_path)
    with pytest.raises(ArgumentError, match="a file"):
        run(folder, tmp_path / "thesis.tex")
    with pytest.raises(DataError, match="no orbit store"):
        OrbitStore.open(tmp_path)


def test_damage_is_found_and_named(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    run(folder, out)
    whole = (out / "acts-00001.bin").read_bytes()
    (out / "acts-00001.bin").write_bytes(whole[:-1])
    with pytest.raises(DataError, match=r"acts-00001.bin has \d+ bytes"):
        OrbitStore.open(out)
    (out / "acts-00001.bin").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    store = OrbitStore.open(out)
    with pytest.raises(DataError, match=r"acts-00001.bin is damaged"):
        store.verify()
    index = json.loads((out / "index.json").read_text())
    (out / "index.json").write_text(json.dumps(index | {"complete": False}))
    with pytest.raises(DataError, match=r"acts-00001.bin is damaged.*Delete the directory"):
        run(folder, out)
    (out / "canvas-00000.bin").unlink()
    with pytest.raises(DataError, match=r"canvas-00000.bin is missing"):
        run(folder, out)
    for text, said in (("{", "not the index"), ('{"format": "x"}', "not the index")):
        (out / "index.json").write_text(text)
        with pytest.raises(DataError, match=said):
            OrbitStore.open(out)
    (out / "index.json").write_text(json.dumps(index | {"format_version": 99}))
    with pytest.raises(DataError, match="version 99"):
        OrbitStore.open(out)


def test_two_harvests_into_one_directory(folder: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "store").mkdir()
    other = os.open(tmp_path / "store", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(DataError, match="another process"):
        run(folder, tmp_path / "store")
    os.close(other)
    assert run(folder, tmp_path / "store")


def test_too_little_room_is_said_before_it_starts(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type(space_module.shutil.disk_usage(tmp_path))
    monkeypatch.setattr(space_module.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 10**6))
    with pytest.raises(DataError, match=r"needs [\d.]+ kB and the disk has 1.0 MB free"):
        run(folder, tmp_path / "store")
    monkeypatch.setattr(space_module.os, "sysconf", lambda name: 100)
    with pytest.raises(DataError, match=r"10\.0 kB of memory.*out=DIR"):
        run(folder)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("orbit", "both"),
        ("dtype", "int8"),
        ("forward_batch", 0),
        ("max_images", 0),
        ("input_size", (1, 2, 3)),
        ("weights", "DEFAULT"),
        ("positions", "many"),
        ("preprocess", ((0.5,), (0.0,))),
        ("preprocess", ((0.5, 0.5), (1.0, 1.0))),
        ("preprocess", lambda x: x.mean()),
    ],
)
def test_wrong_arguments_are_named(folder: Path, option: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=option):
        run(folder, **{option: value})


def test_the_model_is_left_in_training_mode_and_without_hooks(folder: Path) -> None:
    net = TinyNet().train()
    harvest(net, "body", folder, "C2", positions="centre", **SETTINGS)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in net.parameters())


def test_a_model_in_half_precision_and_a_lattice_by_hand(folder: Path) -> None:
    full = run(folder, dtype="float32")
    half = harvest(TinyNet().bfloat16(), "body", folder, "D4", **(SETTINGS | {"dtype": "float32"}))
    assert (half[:] - full[:]).norm() / full[:].norm() < 0.03
    by_hand = run(folder, dtype="float32", lattice=Lattice(4, 1, 13))
    assert torch.equal(by_hand[:], full[:])
