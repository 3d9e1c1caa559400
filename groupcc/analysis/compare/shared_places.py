"""The same places of the same images in two stores of orbits, at which two layers can be compared."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from groupcc.data import Orbits
from groupcc.errors import argument_error

__all__ = ["SharedPlaces", "shared_places"]

THUMBNAIL = 16
"""Side of the small pictures by which two images of one name are compared."""

SAME_PICTURE = 5.0
"""Largest mean difference of two such pictures, of 255 levels. scikit-image's photographs and their quarters at 89 to
381 pixels differ from themselves by up to 2.6, and of the pairs of two of them one in a thousand by less than 7."""


@runtime_checkable
class PlacedOrbits(Protocol):
    """Orbits that know which pixels of which images they come from, as an orbit store does."""

    image_ids: torch.Tensor
    image_names: list[str]
    positions_per_image: int

    def canvas(self, image_id: int) -> npt.NDArray[np.uint8]:
        """The picture that was transformed, uint8 [h, w, 3]."""
        ...

    def centres(self, image_id: int) -> npt.NDArray[np.float64]:
        """The canvas pixel (x, y) at the centre of each of an image's positions, [P, 2]."""
        ...


@dataclass(frozen=True, eq=False)
class SharedPlaces:
    """Pairs of examples that show one place: `a`, `b` int64 [N], examples of the two stores, image after image.

    `images`: how many images they are of. `same_name`: how many images have one name in both stores, of which so many
    look `different`.
    """

    a: torch.Tensor
    b: torch.Tensor
    images: int
    same_name: int
    different: int = 0


def shared_places(a: Orbits, b: Orbits, most: int) -> SharedPlaces:
    """Returns up to `most` places that both stores have, spread evenly over the images that both have.

    Two images are the same if they have the same name (relative to their folder) and look alike, in whatever sizes the
    stores have them. A place of the store with the coarser lattice is paired with the nearest place of the other store
    if that lies in its cell: within half the coarser stride along both axes. Orbits without positions, such as two
    tensors [M, G, D], are paired example by example. Deterministic.

    Raises:
        ArgumentError: only one has positions; or none has, and they differ in length.
    """
    placed = [isinstance(orbits, PlacedOrbits) for orbits in (a, b)]
    if all(placed):
        return _paired(a, b, most)
    if any(placed) or len(a) != len(b):
        raise argument_error(
            "orbits",
            expected="two orbit stores, or two tensors whose examples show the same places in the same order",
            got=" and ".join(f"{type(orbits).__name__} of {len(orbits)} examples" for orbits in (a, b)),
            remedy="groupcc.harvest makes stores; of the same images, for both layers.",
        )
    chosen = _spread(len(a), most)
    images = len(a.image_ids[chosen].unique())
    return SharedPlaces(chosen, chosen, images, images)


def _paired(a: Any, b: Any, most: int) -> SharedPlaces:
    of_b = {key: image for image, key in enumerate(_keys(b.image_names))}
    shared = [(image, of_b[key]) for image, key in enumerate(_keys(a.image_names)) if key in of_b]
    examples: list[npt.NDArray[np.int64]] = [np.zeros((0, 2), dtype=np.int64)]
    different = 0
    for i in _spread(len(shared), most).tolist():
        pictures = [orbits.canvas(image) for orbits, image in zip((a, b), shared[i], strict=True)]
        if _difference(*pictures) > SAME_PICTURE:
            different += 1
            continue
        points, cells = [], []
        for orbits, image, picture in zip((a, b), shared[i], pictures, strict=True):
            size = np.array([picture.shape[1], picture.shape[0]])
            points.append((orbits.centres(image) + 0.5) / size)
            cells.append(orbits.lattice.stride / size)
        first, second = _nearest(*points, *cells)
        starts = [image * orbits.positions_per_image for orbits, image in zip((a, b), shared[i], strict=True)]
        examples.append(np.stack([first + starts[0], second + starts[1]], axis=1))
    pairs = torch.from_numpy(np.concatenate(examples))
    pairs = pairs[_spread(len(pairs), most)]
    images = len(a.image_ids[pairs[:, 0]].unique())
    return SharedPlaces(pairs[:, 0], pairs[:, 1], images, len(shared), different)


def _spread(n: int, most: int) -> torch.Tensor:
    """Returns up to `most` of n indices, evenly spread, int64, ascending."""
    return torch.arange(n) if n <= most else (torch.arange(most, dtype=torch.float64) * (n / most)).long()


def _keys(names: list[str]) -> list[tuple[str, int]]:
    """Returns each name with how often it has come before: names need not be unique."""
    seen: Counter[str] = Counter()
    keys = []
    for name in names:
        keys.append((name, seen[name]))
        seen[name] += 1
    return keys


def _difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    """Returns the mean difference of two pictures of any sizes, both made small."""
    side = (THUMBNAIL, THUMBNAIL)
    small = [np.asarray(Image.fromarray(x).resize(side, Image.Resampling.BOX), dtype=np.float64) for x in (a, b)]
    return float(np.abs(small[0] - small[1]).mean())


def _nearest(
    a: npt.NDArray[np.float64],
    b: npt.NDArray[np.float64],
    cell_a: npt.NDArray[np.float64],
    cell_b: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns which of the points a [P, 2] and b [Q, 2] are one place, by the larger of the two cells, each at most
    once."""
    if (cell_b > cell_a).any():
        second, first = _nearest(b, a, cell_b, cell_a)
        return first, second
    # In cells of the coarser lattice, whose half-width is then 1/2; shares of a picture are exact to 1e-9 of it.
    distance = np.abs(a[:, None] - b[None]) / cell_a
    far = distance.max(2)
    nearest = far.argmin(1)
    order = far.min(1).argsort(kind="stable")
    inside = order[far[order, nearest[order]] <= 0.5 + 1e-6]
    # Nearest first: of two places on the edge of their cells that share a neighbour, one has it.
    _, first_of = np.unique(nearest[inside], return_index=True)
    kept = np.sort(inside[first_of])
    return kept, nearest[kept]
