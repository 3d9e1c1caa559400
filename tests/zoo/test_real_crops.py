"""Crops of all photographs that installed packages bring."""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from groupcc import harvest
from groupcc.errors import ArgumentError, DataError
from groupcc.zoo import Photograph, photographs, real_crops, real_photographs
from groupcc.zoo.real_crops import MAX_ENLARGED, SCALES


def test_twenty_photographs_none_twice() -> None:
    every = real_photographs()
    names = [name for name, _ in every]
    assert names[:18] == [name for name, _ in photographs()]
    assert names[18:] == ["china", "flower"]
    assert len(set(names)) == 20
    for name, pixels in every:
        assert (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3), name
    thumbnails = np.stack([np.asarray(Image.fromarray(p).convert("L").resize((16, 16))).ravel() for _, p in every])
    alike = np.abs(np.corrcoef(thumbnails))
    np.fill_diagonal(alike, 0)
    assert alike.max() < 0.9


def test_crops_are_even_over_photographs_and_named_by_them() -> None:
    crops = real_crops(47, 64, seed=3)
    assert crops.images.shape == (47, 64, 64, 3)
    assert (len(crops), len(set(crops.names))) == (47, 47)
    assert crops.photographs == tuple(name.split("/")[0] for name in crops.names)
    counts = [crops.photographs.count(name) for name, _ in real_photographs()]
    assert set(counts) == {2, 3}
    assert crops.names[0] == "astronaut/0000"
    assert crops.names[46] == "hubble_deep_field/0002"
    pairs = list(crops)
    assert all(
        name == crops[i][0] and np.array_equal(pixels, crops.images[i]) for i, (name, pixels) in enumerate(pairs)
    )


def test_the_seed_decides_and_fewer_are_the_first_of_more() -> None:
    crops, again, fewer, other = real_crops(60, 48), real_crops(60, 48), real_crops(25, 48), real_crops(60, 48, seed=1)
    assert np.array_equal(crops.images, again.images)
    assert np.array_equal(crops.images[:25], fewer.images)
    assert crops.names[:25] == fewer.names
    assert not np.array_equal(crops.images, other.images)


def test_a_crop_is_a_square_of_its_photograph_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a ramp, colours say where a crop lies and how large it is."""
    y, x = np.mgrid[0:400, 0:1000]
    ramp = np.stack([x / 999 * 255, y / 399 * 255, np.zeros_like(x)], -1).round().astype(np.uint8)
    # `groupcc.zoo.real_crops` as an attribute is the function.
    module = importlib.import_module("groupcc.zoo.real_crops")
    monkeypatch.setattr(module, "real_photographs", lambda: [Photograph("ramp", ramp)])
    crops = real_crops(20, 90)
    places = []
    for i, (_, pixels) in enumerate(crops):
        red, green = (pixels[..., channel].astype(float) for channel in (0, 1))
        wide = (red[:, -1].mean() - red[:, 0].mean()) / 255 * 999
        high = (green[-1].mean() - green[0].mean()) / 255 * 399
        expected = max(SCALES[i % len(SCALES)] * 400, 90 / MAX_ENLARGED)
        assert wide == pytest.approx(expected, abs=12)
        assert high == pytest.approx(expected, abs=12)
        places.append(red[:, 0].mean())
    assert np.std(places) > 20


def test_a_harvest_knows_the_photographs() -> None:
    crops = real_crops(22, 97)
    store = harvest("bundled", "mixed3b", crops, "C4", input_size=97, groups="parent", progress=False)
    names = [store.image_names[i] for i in store.image_ids.tolist()]
    assert set(names) == set(crops.names)
    shared = {name: int(store.photograph_ids[names.index(name)]) for name in ("astronaut/0000", "astronaut/0001")}
    assert len(set(shared.values())) == 1
    assert len(torch.unique(store.photograph_ids)) == 20


def test_wrong_arguments_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"count": 0}, {"size": 7}, {"size": 64.0}, {"seed": -1}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            real_crops(**options)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else find(name))
    with pytest.raises(DataError, match="scikit-learn, which is not installed"):
        real_photographs()
