"""Crops of the bundled photographs at several scales, for networks that have learned from photographs."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from PIL import Image

from groupcc.errors import argument_error, is_whole
from groupcc.zoo.photographs import Photograph, photographs

__all__ = ["GROUPS", "SMALLEST", "crops"]

SMALLEST = 0.35
"""The smallest crop's side, over the photograph's shorter side."""

GROUPS = r"[^,]+"
"""What `harvest(groups=)` takes so that crops of one photograph stay together: a crop is called "chelsea, 3"."""

OF_SKLEARN = ("china.jpg", "flower.jpg")
"""Files in scikit-learn's wheel. It says who took them: Flickr users, under CC BY."""


def crops(count: int = 5, *, seed: int = 0) -> list[tuple[str, np.ndarray]]:
    """Returns `count` square crops of each photograph, as (name, uint8 [S, S, 3]), crop by crop of all photographs.

    Photographs are those of scikit-image (`photographs`) and scikit-learn, 20 in all. The first crop of each is the
    centred square. The sides of the others are log-uniform from `SMALLEST` of the shorter side to all of it, their
    places uniform. Deterministic in `seed`.

    Example: `harvest(model, layer, crops(), groups=GROUPS)` splits by photograph.
    """
    if not is_whole(count, 1):
        raise argument_error("count", expected="a whole number of at least 1", got=count, remedy="The default is 5.")
    shown = [*photographs("all"), *_of_sklearn()]
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        for name, pixels in shown:
            whole = min(pixels.shape[:2])
            side = whole if number == 0 else int(whole * SMALLEST ** generator.uniform(0, 1))
            room = np.array(pixels.shape[:2]) - side
            top, left = room // 2 if number == 0 else generator.integers(0, room + 1)
            made.append((f"{name}, {number}", pixels[top : top + side, left : left + side]))
    return made


def _of_sklearn() -> list[Photograph]:
    """Returns the photographs in scikit-learn's folder, found without importing it; none if they are not there."""
    package = importlib.util.find_spec("sklearn")
    folders = list(package.submodule_search_locations or []) if package is not None else []
    paths = [Path(folder) / "datasets" / "images" / name for folder in folders for name in OF_SKLEARN]
    found = []
    for path in paths:
        if path.is_file():
            with Image.open(path) as image:
                found.append(Photograph(path.stem, np.array(image.convert("RGB"))))
    return found
