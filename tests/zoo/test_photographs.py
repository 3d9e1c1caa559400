from __future__ import annotations

import importlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from groupcc.errors import ArgumentError, DataError
from groupcc.zoo import photographs
from groupcc.zoo.photographs import HELD_OUT, TRAIN, photographs_folder

# `groupcc.zoo.photographs` as an attribute is the function.
module = importlib.import_module("groupcc.zoo.photographs")


def test_every_photograph_is_uint8_rgb_and_large_enough() -> None:
    every = photographs()
    assert len(every) == 18
    assert len({photograph.name for photograph in every}) == 18
    for name, pixels in every:
        assert pixels.dtype == np.uint8, name
        assert pixels.shape[2] == 3, name
        assert min(pixels.shape[:2]) >= 170, name
        assert pixels.std() > 5, name


def test_the_splits_are_disjoint_and_together_all() -> None:
    train, held_out = photographs("train"), photographs("held_out")
    assert [p.name for p in photographs("all")] == [p.name for p in train + held_out]
    assert not set(TRAIN) & set(HELD_OUT)
    assert [p.name for p in held_out] == ["camera", "coffee", "coins", "gravel", "motorcycle_left"]
    assert "motorcycle_right.png" not in TRAIN


def test_pixels_are_those_of_the_file_in_colour_order() -> None:
    coffee = next(p for p in photographs("held_out") if p.name == "coffee")
    with Image.open(photographs_folder() / "coffee.png") as image:
        assert np.array_equal(coffee.pixels, np.asarray(image))
    red, _, blue = coffee.pixels.reshape(-1, 3).mean(axis=0)
    assert red > blue


def test_grey_becomes_rgb_and_transparent_goes_on_white(tmp_path, monkeypatch) -> None:
    rgba = np.zeros((4, 5, 4), np.uint8)
    rgba[:, :2] = (200, 10, 30, 255)
    Image.fromarray(rgba).save(tmp_path / "clear.png")
    Image.fromarray(np.full((4, 5), 77, np.uint8)).save(tmp_path / "grey.png")
    monkeypatch.setattr(module, "photographs_folder", lambda: tmp_path)
    monkeypatch.setitem(module.SPLITS, "train", ("clear.png", "grey.png"))
    clear, grey = photographs("train")
    assert clear.pixels[0, 0].tolist() == [200, 10, 30]
    assert clear.pixels[0, 4].tolist() == [255, 255, 255]
    assert np.array_equal(grey.pixels, np.full((4, 5, 3), 77))


def test_errors_name_the_split_the_extra_and_the_damaged_file(tmp_path, monkeypatch) -> None:
    with pytest.raises(ArgumentError, match='split: expected "all", "train" or "held_out"; got'):
        photographs("test")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'groupcc\[demo\]'"):
        photographs()
    monkeypatch.undo()
    monkeypatch.setattr(module, "photographs_folder", lambda: tmp_path)
    with pytest.raises(DataError, match=r"camera\.png is missing"):
        photographs("held_out")
    (tmp_path / "camera.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"camera\.png can't be read"):
        photographs("held_out")


def test_photographs_load_without_torch_and_without_importing_skimage() -> None:
    code = (
        "import sys, groupcc.zoo as zoo; zoo.photographs('held_out'); import groupcc.zoo.photographs;"
        "assert callable(zoo.photographs);"
        "assert 'torch' not in sys.modules and 'skimage' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
