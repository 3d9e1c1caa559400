"""Photographs for a network that was trained on photographs: all that installed packages bring, in crops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from groupcc.errors import DataError, argument_error, check_whole
from groupcc.zoo.photographs import Photograph, package_folder, photographs, read_rgb

__all__ = ["MAX_ENLARGED", "RealCrops", "real_crops", "real_photographs"]

SCALES = (1.0, 0.7, 0.5, 0.35, 0.25)
"""Side of a crop, as a share of the shorter side of its photograph."""

MAX_ENLARGED = 1.5
"""A crop has at least 1/1.5 as many pixels along its side as the image made of it, or the photograph's shorter side."""


@dataclass(frozen=True, eq=False)
class RealCrops(Sequence[tuple[str, np.ndarray]]):
    """Crops of photographs: a sequence of (name, pixels), as `harvest` takes images.

    - `images` uint8 [N, size, size, 3], RGB.
    - `names` [N]: "chelsea/0003" is the fourth crop of chelsea. `harvest(..., groups="parent")` reads the photograph
      off the names.
    - `photographs` [N]: the name of each crop's photograph. What shares a photograph is not independent.
    """

    images: np.ndarray
    names: tuple[str, ...]
    photographs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[str, np.ndarray]:  # type: ignore[override]
        return self.names[index], self.images[index]

    def __iter__(self) -> Iterator[tuple[str, np.ndarray]]:
        return zip(self.names, self.images, strict=True)


def real_photographs() -> list[Photograph]:
    """Photographs of real things, from installed packages: the 18 of `photographs`, then china and flower.

    The last two come with scikit-learn (Creative Commons Attribution 2.0, by danielbuechele and vultilion on Flickr).
    No two of the 20 show one scene. Nothing is downloaded, and this package carries no copy.

    Raises:
        DataError: scikit-image is not installed; a file of it, or of scikit-learn, is missing or damaged.
    """
    folder = package_folder("sklearn")
    if folder is None:
        raise DataError("two photographs are those of scikit-learn, which is not installed. Run: pip install groupcc")
    files = (folder / "datasets" / "images" / f"{name}.jpg" for name in ("china", "flower"))
    return photographs() + [Photograph(file.stem, read_rgb(file, "scikit-learn")) for file in files]


def real_crops(count: int = 200, size: int = 320, seed: int = 0) -> RealCrops:
    """Square crops of all of `real_photographs`, of several scales, at random places.

    Crop i is of photograph i mod 20, so each photograph has as many as any other, give or take one. The first crop of a
    photograph is as large as its shorter side, the second 0.7 times as large, and so on through `SCALES`, and round
    again. No crop is enlarged more than 1.5 times (`MAX_ENLARGED`), unless the whole photograph is smaller. Crops of
    one photograph may overlap. Nothing is turned or mirrored: up stays up.

    Args:
        count: number of crops. Those of a smaller count are the first of a larger one.
        size: side of the images in pixels. 320 is about what a network that sees 224 needs to turn its input.
        seed: of the places.

    Returns:
        The crops, the same for the same arguments.

    Raises:
        ArgumentError: an argument that is no whole number, or too small.
        DataError: as `real_photographs`.
    """
    check_whole("count", count, 1, "200 is the default.")
    check_whole("seed", seed, 0, "0 is the default.")
    if isinstance(size, bool) or not isinstance(size, int) or size < 8:
        raise argument_error("size", expected="a whole number of pixels >= 8", got=size, remedy="320 is the default.")
    sources = real_photographs()
    images = np.empty((count, size, size, 3), np.uint8)
    names: list[str] = []
    for i in range(count):
        turn, which = divmod(i, len(sources))
        # A generator for each crop: what comes before has no part in it.
        images[i] = _crop(sources[which].pixels, SCALES[turn % len(SCALES)], size, np.random.default_rng([seed, i]))
        names.append(f"{sources[which].name}/{turn:04d}")
    return RealCrops(images, tuple(names), tuple(name.split("/")[0] for name in names))


def _crop(pixels: np.ndarray, scale: float, size: int, random: np.random.Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    side = min(shorter, max(round(scale * shorter), round(size / MAX_ENLARGED)))
    top, left = (int(random.integers(length - side + 1)) for length in (height, width))
    crop = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(crop.resize((size, size), Image.Resampling.BICUBIC))
