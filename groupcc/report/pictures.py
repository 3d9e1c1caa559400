"""Pictures in the page: patches of the photographs and heat maps, as data URIs."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from groupcc.analysis import Atlas
from groupcc.analysis.numbers import number
from groupcc.groups import PlanarGroup
from groupcc.groups.planar import format_degrees
from groupcc.report.svg import LEVELS, NEGATIVE, POSITIVE

__all__ = ["PATCH_SIDE", "Patch", "PatchBook", "PatchSource", "element_words", "heat_map", "telling_elements"]

PATCH_SIDE = 64
"""Side of an embedded patch in pixels."""

_HEAT_MAP_LIMIT = 128


@dataclass(frozen=True)
class Patch:
    """One picture: its number among `PatchBook.sources`, the text in its place, and what is written under it."""

    number: int
    alt: str
    caption: str = ""


def _base64(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


class Place(Protocol):
    """Where an example lies: the name of its image, and the pixel."""

    @property
    def name(self) -> str: ...

    @property
    def xy(self) -> tuple[float, float]: ...


@runtime_checkable
class PatchSource(Protocol):
    """Orbits that know the pictures that they come from, as an orbit store does."""

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def example(self, i: int) -> Place:
        """Returns where example i lies."""
        ...

    def patch(self, i: int, element: int = 0) -> np.ndarray:
        """Returns the picture around it under one element, uint8 [h, w, 3]."""
        ...


class PatchBook:
    """The most activating patches of every latent, each encoded once; none if the atlas or the orbits have none.

    `sources`: the pictures asked for so far, JPEG in base64, by number.
    """

    def __init__(self, atlas: Atlas, orbits: object) -> None:
        self._group, self._top = atlas.group, atlas.top_examples
        self._orbits = orbits if isinstance(orbits, PatchSource) and self._top is not None else None
        self._numbers: dict[tuple[int, int], int] = {}
        self.sources: list[str] = []

    def __bool__(self) -> bool:
        return self._orbits is not None

    def examples(self, latent: int, limit: int) -> list[tuple[int, float]]:
        """Returns (example, activation) of the latent's strongest examples, strongest first, at most `limit`."""
        if self._orbits is None or self._top is None:
            return []
        pairs = zip(self._top.indices[latent].tolist(), self._top.acts[latent].tolist(), strict=True)
        return [(i, act) for i, act in pairs if i >= 0][:limit]

    def poses(self, latent: int) -> list[int]:
        """Returns the pose of a latent in each of its strongest examples; none if latents have no poses."""
        poses = None if self._orbits is None or self._top is None else self._top.poses
        return [] if poses is None else poses[latent].tolist()

    def upright(self, example: int, act: float) -> Patch:
        """Returns the patch as it lies in the photograph."""
        return Patch(self._encode(example, 0), f"Patch {self._place(example)}, activation {number(act)}")

    def transformed(self, example: int, element: int, caption: str) -> Patch:
        """Returns the patch as the network saw it under one element of the group."""
        words = element_words(self._group, element)
        return Patch(self._encode(example, element), f"Patch {self._place(example)}, {words}", caption)

    def _place(self, example: int) -> str:
        assert self._orbits is not None
        place = self._orbits.example(example)
        x, y = (round(float(v)) for v in place.xy)
        return f"of {place.name} around ({x}, {y})"

    def _encode(self, example: int, element: int) -> int:
        if (example, element) not in self._numbers:
            assert self._orbits is not None
            self._numbers[example, element] = self.add(self._orbits.patch(example, element=element))
        return self._numbers[example, element]

    def add(self, pixels_HWC: np.ndarray) -> int:
        """Returns the number of one more picture, uint8 [H, W, 3]."""
        image = Image.fromarray(np.ascontiguousarray(pixels_HWC, dtype=np.uint8))
        if image.size != (PATCH_SIDE, PATCH_SIDE):
            image = image.resize((PATCH_SIDE, PATCH_SIDE), Image.Resampling.LANCZOS)
        self.sources.append(_base64(image, "JPEG", quality=75, optimize=True))
        return len(self.sources) - 1


def heat_map(similarity_GG: np.ndarray, *, see_through: bool = True) -> str:
    """Returns block similarity as a PNG, one pixel an entry, on the ring's colour scale; 0 is see-through, or white."""
    values = np.nan_to_num(np.asarray(similarity_GG, dtype=np.float32))
    if values.shape[0] > _HEAT_MAP_LIMIT:
        small = Image.fromarray(values).resize((_HEAT_MAP_LIMIT, _HEAT_MAP_LIMIT), Image.Resampling.BOX)
        values = np.asarray(small)
    steps = np.rint(np.clip(values, -1, 1) * LEVELS).astype(np.int64) + LEVELS
    signs = range(-LEVELS, LEVELS + 1)
    if not see_through:
        colours = np.array([NEGATIVE if step < 0 else POSITIVE for step in signs])
        mixed = 255 + (colours - 255) * (np.abs(signs)[:, None] / LEVELS)
        pixels = mixed.round().astype(np.uint8)[steps].repeat(8, axis=0).repeat(8, axis=1)
        return f"data:image/png;base64,{_base64(Image.fromarray(pixels), 'PNG', optimize=True)}"
    image = Image.fromarray(steps.astype(np.uint8))
    image = image.convert("P") if image.mode != "P" else image
    image.putdata(steps.astype(np.uint8).ravel().tolist())
    image.putpalette([c for step in signs for c in (NEGATIVE if step < 0 else POSITIVE)])
    opacity = bytes(round(255 * abs(s) / LEVELS) for s in signs)
    return f"data:image/png;base64,{_base64(image, 'PNG', transparency=opacity, optimize=True)}"


def element_words(group: PlanarGroup, element: int) -> str:
    """Returns what an element does to the image: `upright`, `turned 45°`, `mirrored left–right`, `mirrored at 67°`."""
    if element == group.identity:
        return "upright"
    if not group.reflections[element]:
        return f"turned {format_degrees(math.degrees(group.angles[element]))}"
    axis = float(group.axes[element])
    if abs(axis - 90) < 1e-9:
        return "mirrored left–right"
    if axis < 1e-9:
        return "mirrored top–bottom"
    return f"mirrored at {format_degrees(round(axis, 1))}"


def telling_elements(group: PlanarGroup, own_axis: float | None) -> list[int]:
    """Returns elements that tell shapes apart: upright, about 45°, 90°, 180°, left–right, the latent's own mirror."""
    turns = np.degrees(group.angles[: group.n])
    chosen = [0, *(int(np.argmin(np.abs(turns - target))) for target in (45, 90, 180))]
    if group.kind == "dihedral":
        chosen.append(group.n)
        if own_axis is not None:
            distance = np.abs((group.axes[group.n :] - own_axis + 90) % 180 - 90)
            chosen.append(group.n + int(np.argmin(distance)))
    return list(dict.fromkeys(chosen))
