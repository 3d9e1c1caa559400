"""The same places of the same images in two stores: found by pixels, whatever lattice and size each store has."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import groupcc
from groupcc.analysis.compare.shared_places import PlacedOrbits, SharedPlaces, shared_places
from groupcc.data.orbits import TensorOrbits
from groupcc.errors import ArgumentError
from groupcc.harvesting import OrbitStore
from helpers.nets import TinyNet, write_photographs
from helpers.stores import SETTINGS


@pytest.fixture(scope="module", name="folder")
def photograph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    write_photographs(path, 5)
    return path


def store(folder: Path, layer: str, **options) -> OrbitStore:
    return groupcc.harvest(TinyNet(), layer, folder, "D4", **(SETTINGS | options))


def apart(a: OrbitStore, b: OrbitStore, shared: SharedPlaces) -> np.ndarray:
    """Offsets of the pairs in a's pixels, where both see the picture at one size."""
    pairs = [(a.example(int(i)), b.example(int(j))) for i, j in zip(shared.a, shared.b, strict=True)]
    assert all(one.name == other.name for one, other in pairs)
    middle = [np.array(orbits.canvas(0).shape[:2]) / 2 - 0.5 for orbits in (a, b)]
    return np.array([one.xy - middle[0] - (other.xy - middle[1]) for one, other in pairs])


def test_places_of_a_coarse_lattice_have_their_nearest_of_a_fine_one(folder: Path) -> None:
    fine, coarse = store(folder, "first"), store(folder, "body")
    assert (fine.lattice.stride, coarse.lattice.stride) == (2, 4)
    assert isinstance(fine, PlacedOrbits)
    shared = shared_places(fine, coarse, 10_000)
    assert (shared.images, shared.same_name, shared.different) == (5, 5, 0)
    assert len(shared.b.unique()) == len(shared.b) == len(coarse)  # its disc lies inside the other's
    assert len(shared.a.unique()) == len(shared.a)
    scale = fine.canvas(0).shape[0] / coarse.canvas(0).shape[0]
    assert np.abs(apart(fine, coarse, shared)).max() <= 1 + 10 * abs(1 - scale)  # half the fine stride
    mirrored = shared_places(coarse, fine, 10_000)
    assert torch.equal(mirrored.a.sort().values, shared.b.sort().values)


def test_centres_are_those_of_the_examples(folder: Path) -> None:
    orbits = store(folder, "body", positions="random:3")
    told = [orbits.example(i).xy for i in range(6, 9)]
    assert np.allclose(orbits.centres(2), told)
    with pytest.raises(IndexError, match="image 5 of a store of 5"):
        orbits.centres(5)


def test_random_positions_are_paired_where_they_meet(folder: Path) -> None:
    first = store(folder, "body", positions="random:8")
    same, other = (store(folder, "body", positions="random:8", seed=seed) for seed in (0, 1))
    assert torch.equal(shared_places(first, same, 1000).b, torch.arange(40))
    met = shared_places(first, other, 1000)
    assert 0 < len(met.a) < 40
    assert np.abs(apart(first, other, met)).max() == 0


def test_images_are_told_by_name_and_look(folder: Path, tmp_path: Path) -> None:
    write_photographs(tmp_path, 5)
    files = sorted(tmp_path.iterdir())
    files[0].rename(tmp_path / f"other{files[0].suffix}")
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(files[1])
    a, b = store(folder, "body"), store(tmp_path, "body", input_size=72)  # the same pictures, larger
    shared = shared_places(a, b, 10_000)
    assert (shared.images, shared.same_name, shared.different) == (3, 4, 1)
    assert set(a.image_ids[shared.a].tolist()) == {2, 3, 4}
    names = [[orbits.image_names[i] for i in orbits.image_ids[at]] for orbits, at in ((a, shared.a), (b, shared.b))]
    assert names[0] == names[1]
    nothing = shared_places(a, groupcc.harvest(TinyNet(), "body", torch.rand(2, 3, 90, 90), "D4", **SETTINGS), 100)
    assert (len(nothing.a), nothing.images, nothing.same_name) == (0, 0, 0)


def test_at_most_so_many_spread_over_the_images(folder: Path) -> None:
    orbits = store(folder, "body")
    shared = shared_places(orbits, orbits, 10)
    assert torch.equal(shared.a, shared.b)
    assert torch.bincount(orbits.image_ids[shared.a]).tolist() == [2] * 5


class Made:
    """Images of given levels of grey, seen at given places."""

    positions_per_image = 2

    def __init__(self, levels: dict[str, list[int]], places: list[tuple[float, float]], stride: float = 4.0) -> None:
        self.image_names = [name for name, shown in levels.items() for _ in shown]
        self.levels = [level for shown in levels.values() for level in shown]
        self.image_ids = torch.arange(len(self.levels)).repeat_interleave(2)
        self.lattice = SimpleNamespace(stride=stride)
        self.places = places

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    def canvas(self, image_id: int) -> np.ndarray:
        return np.full((40, 40, 3), self.levels[image_id], dtype=np.uint8)

    def centres(self, image_id: int) -> np.ndarray:
        return np.array(self.places)


def test_two_images_of_one_name() -> None:
    """The first goes with the first, the second with the second; and one that has no partner with none."""
    places = [(8.0, 8.0), (12.0, 8.0)]
    first, second = Made({"x": [0, 90], "y": [180]}, places), Made({"y": [180], "x": [0, 90, 180]}, places)
    shared = shared_places(first, second, 100)
    assert shared.a.tolist() == [0, 1, 2, 3, 4, 5]
    assert shared.b.tolist() == [2, 3, 4, 5, 0, 1]


@pytest.mark.parametrize(("offset", "found"), [((3.9, 0.0), 1), ((4.1, 0.0), 0), ((-3.0, 3.9), 1), ((0.0, -4.1), 0)])
def test_the_cell_is_that_of_the_coarser_lattice(offset: tuple[float, float], found: int) -> None:
    """Of stride 8, so 4 pixels to either side, whichever of the two stores has it."""
    coarse = Made({"x": [9]}, [(8.0, 8.0), (32.0, 32.0)], stride=8.0)
    fine = Made({"x": [9]}, [(8.0 + offset[0], 8.0 + offset[1]), (20.0, 20.0)], stride=2.0)
    assert len(shared_places(coarse, fine, 100).a) == found
    assert len(shared_places(fine, coarse, 100).a) == found


def test_two_places_in_one_cell_are_one() -> None:
    """The nearer of them, and the other cell has none."""
    coarse = Made({"x": [9]}, [(8.0, 8.0), (32.0, 32.0)], stride=8.0)
    fine = Made({"x": [9]}, [(10.0, 8.0), (9.0, 8.0)], stride=2.0)
    shared = shared_places(coarse, fine, 100)
    assert (shared.a.tolist(), shared.b.tolist()) == ([0], [1])


def test_orbits_without_positions(folder: Path) -> None:
    first, second = TensorOrbits(torch.zeros(30, 8, 3)), TensorOrbits(torch.zeros(30, 8, 5))
    shared = shared_places(first, second, 20)
    assert torch.equal(shared.a, shared.b)
    assert (len(shared.a), shared.images) == (20, 20)
    assert shared.a.diff().min() >= 1
    for other in (TensorOrbits(torch.zeros(29, 8, 5)), store(folder, "body", positions="random:6")):
        with pytest.raises(ArgumentError, match="orbits: expected two orbit stores, or two tensors"):
            shared_places(first, other, 20)
