"""The real photographs that scikit-image's wheel carries, read from its folder: nothing is downloaded."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from groupcc.errors import DataError, check_choice

__all__ = [
    "HELD_OUT",
    "SPLITS",
    "TRAIN",
    "Photograph",
    "package_folder",
    "photographs",
    "photographs_folder",
    "read_rgb",
]

TRAIN: tuple[str, ...] = (
    "astronaut.png",
    "brick.png",
    "cell.png",
    "chelsea.png",
    "clock_motion.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
"""Files the bundled net was trained on; the index in this tuple is the class it predicts."""

HELD_OUT: tuple[str, ...] = ("camera.png", "coffee.png", "coins.png", "gravel.png", "motorcycle_left.png")
"""Files the bundled net has never seen: textures, round things, thin lines and a cluttered scene."""

SPLITS: dict[str, tuple[str, ...]] = {"all": TRAIN + HELD_OUT, "train": TRAIN, "held_out": HELD_OUT}


class Photograph(NamedTuple):
    """A photograph: `name` is the file's stem, `pixels` are uint8 [H, W, 3], RGB in 0..255, top row first."""

    name: str
    pixels: np.ndarray


def photographs_folder() -> Path:
    """The `data` folder of the installed scikit-image, found without importing it.

    Raises:
        DataError: scikit-image is not installed.
    """
    folder = package_folder("skimage")
    if folder is None:
        raise DataError(
            "the bundled photographs are those of scikit-image, which is not installed. "
            "Run: pip install 'groupcc[demo]'"
        )
    return folder / "data"


def package_folder(module: str) -> Path | None:
    """Returns the folder of an installed package, which is not imported; None if the package is not installed."""
    package = importlib.util.find_spec(module)
    locations = list(package.submodule_search_locations or []) if package is not None else []
    return Path(locations[0]) if locations else None


def read_rgb(path: Path, package: str = "scikit-image") -> np.ndarray:
    """Returns the pixels of a file that a package installed, uint8 [H, W, 3]. What is transparent is laid on white.

    Raises:
        DataError: the file is missing or damaged.
    """
    remedy = f"Run: pip install --force-reinstall {package}"
    if not path.is_file():
        raise DataError(f"{path} is missing from the installed {package}. {remedy}")
    try:
        with Image.open(path) as image:
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                opaque = image.convert("RGBA")
                white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
                image = Image.alpha_composite(white, opaque)
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path} can't be read as an image ({error}). {remedy}") from error


def photographs(split: str = "all") -> list[Photograph]:
    """Photographs of a fixed split, always in the same order.

    Grey files become RGB with equal channels; transparent ones are laid on white. The two splits share no scene:
    scikit-image's second view of the motorcycle and its small cut-out of a retina are left out, as are its drawings,
    charts and stacks.

    Licences: scikit-image records each file's source and terms in the docstring of its loader (`skimage.data.camera`
    and so on, in `skimage/data/_fetchers.py`): CC0 or public domain for most, "no known copyright restrictions" for
    `coins` and `ihc`. `moon`, `page` and the motorcycle (of the Middlebury 2014 stereo benchmark) state no terms of
    their own there. The files are read where scikit-image installed them; this package carries no copy.

    Args:
        split: "train" (the 13 that the bundled net learned from), "held_out" (5 others), or "all" (train first).

    Returns:
        A list of `Photograph(name, pixels)`.

    Raises:
        ArgumentError: unknown split.
        DataError: scikit-image is not installed, or a file of it is missing or damaged.
    """
    check_choice("split", split, SPLITS, "Use 'all' for every photograph.")
    folder = photographs_folder()
    return [Photograph(Path(name).stem, read_rgb(folder / name)) for name in SPLITS[split]]
