"""OrbitStore: harvested orbits, with what is needed to go back to the pictures they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from groupcc.data import Orbits
from groupcc.errors import DataError, argument_error
from groupcc.files import read_json
from groupcc.groups import Group, PlaneAction, as_action, group
from groupcc.groups.images import Frame
from groupcc.harvesting.shards import ArrayCache, ImageShapes, ShardArrays, damage, read_shard
from groupcc.views.geometry import Geometry
from groupcc.views.lattice import Lattice

__all__ = ["FORMAT", "FORMAT_VERSION", "Example", "OrbitStore", "read_index"]

FORMAT = "groupcc-orbits"
FORMAT_VERSION = 1
_REQUIRED = ("complete", "settings", "geometry", "layout", "shard_images", "cursor", "shards", "skipped")
PATCH_SIDES = (15, 64)
"""Bounds of the default patch side in canvas pixels."""


@dataclass(frozen=True)
class Example:
    """Where one orbit comes from.

    `image_id` and `name` of the image; `position` (x, y), a pixel of the layer's map; `xy`, the canvas pixel at the
    centre of its receptive field.
    """

    image_id: int
    name: str
    position: tuple[int, int]
    xy: tuple[float, float]


class OrbitStore(Orbits):
    """M orbits [G, D] of one layer, in image order: example i is position i mod P of image i div P.

    Made by [`harvest`][groupcc.harvest]; `OrbitStore.open(directory)` reads one from disk (memory-mapped, so a store
    may be larger than the memory). `store[i]`, `store[i:j]` and `store.take(indices)` give float32.
    """

    def __init__(self, index: dict[str, Any], shards: Sequence[ShardArrays] | None, path: Path | None) -> None:
        self.index = index
        self.path = path
        settings = index["settings"]
        self.group: Group = group(settings["group"])
        self.layer: str = settings["layer"]
        self.model_name: str = settings["model"]
        self.geometry = Geometry.from_json(index["geometry"])
        self.stored = ImageShapes(**(index["layout"] | {"canvas": tuple(index["layout"]["canvas"])}))
        self.d_in: int = self.stored.d_in
        self.dtype: str = self.stored.dtype
        records = index["shards"]
        self.image_names: list[str] = [name for record in records for name in record["names"]]
        self.image_ids: torch.Tensor = torch.arange(len(self.image_names)).repeat_interleave(self.stored.positions)
        """Which image each example comes from, int64 [M]; an index into `image_names`."""
        keys = [key for record in records for key in record.get("groups", [])]
        self.photograph_names: list[str] = list(dict.fromkeys(keys)) if keys else self.image_names
        """The key of each photograph: that of `harvest`'s `groups`, or the image's name if the harvest had none."""
        number = {key: i for i, key in enumerate(self.photograph_names)}
        self._photograph_of_image = torch.tensor([number[key] for key in keys]) if keys else None
        self.skipped: list[dict[str, Any]] = index["skipped"]
        self._starts = np.cumsum([0] + [record["images"] for record in records])
        self._shard: Callable[[int], ShardArrays]
        if shards is not None:
            self._shard = shards.__getitem__
        else:
            assert path is not None
            self._shard = ArrayCache(lambda number: read_shard(path, records[number], self.stored))

    @classmethod
    def open(cls, path: str | Path) -> OrbitStore:
        """The store in a directory.

        Raises:
            DataError: no store, an unfinished one, another format version, or files missing or of the wrong size.
                `verify()` also reads every byte.
        """
        folder = Path(path)
        index = read_index(folder)
        if index is None:
            raise DataError(f"{folder} holds no orbit store (there is no index.json). groupcc harvest writes one.")
        if not index["complete"]:
            raise DataError(
                f"{folder} holds an unfinished harvest ({sum(record['images'] for record in index['shards'])} images). "
                "Run the same harvest again: it goes on where it stopped."
            )
        store = cls(index, None, folder)
        store._check(checksums=False)
        return store

    def verify(self) -> None:
        """Reads every file of the store and compares its checksum; DataError names the first damaged one."""
        self._check(checksums=True)

    def _check(self, *, checksums: bool) -> None:
        if self.path is None:
            return
        for record in self.index["shards"]:
            wrong = damage(self.path, record, self.stored, checksums=checksums)
            if wrong:
                raise DataError(f"{self.path}: {wrong}. Delete the directory and harvest again.")

    # What it is

    @property
    def lattice(self) -> Lattice:
        """Stride, offset and receptive field of the layer."""
        return self.geometry.lattice

    @property
    def place_radius(self) -> float:
        """Half the receptive field, in map pixels: examples that are nearer show one place."""
        return 0.5 * self.lattice.receptive_field / self.lattice.stride

    @property
    def photograph_ids(self) -> torch.Tensor:
        """Which photograph each example comes from, int64 [M]; an index into `photograph_names`."""
        return self.image_ids if self._photograph_of_image is None else self._photograph_of_image[self.image_ids]

    @property
    def positions_per_image(self) -> int:
        """P, the number of examples of each image."""
        return self.stored.positions

    def __len__(self) -> int:
        return len(self.image_names) * self.stored.positions

    @property
    def shape(self) -> tuple[int, int, int]:
        """(M, G, D)."""
        return len(self), self.stored.order, self.stored.d_in

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else f"in {self.path}"
        return (
            f"OrbitStore({len(self)} examples of {len(self.image_names)} images, {self.group.name}, "
            f"{self.d_in} channels of {self.layer} of {self.model_name}, {self.dtype}, {where})"
        )

    # Activations

    def __getitem__(self, key: int | slice | Sequence[int] | npt.NDArray[Any] | torch.Tensor) -> torch.Tensor:
        if isinstance(key, (int, np.integer)):
            return self.take([int(key)])[0]
        if isinstance(key, slice):
            return self.take(range(*key.indices(len(self))))
        return self.take(key)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int] | npt.NDArray[Any] | torch.Tensor) -> torch.Tensor:
        """The orbits of these examples in this order, float32 [n, G, D]; negative indices count from the end."""
        wanted = self._indices(indices)
        out = torch.empty(len(wanted), self.stored.order, self.stored.d_in)
        images, positions = np.divmod(wanted, self.stored.positions)
        shards = np.searchsorted(self._starts, images, side="right") - 1
        rows = (images - self._starts[shards]) * self.stored.positions + positions
        for shard in np.unique(shards):
            here = np.flatnonzero(shards == shard)
            source = self._shard(int(shard)).acts
            first, last = int(rows[here[0]]), int(rows[here[-1]])
            if last - first == len(here) - 1 and bool((np.diff(rows[here]) == 1).all()):
                values = source[first : last + 1]
            else:
                values = source[torch.from_numpy(rows[here])]
            out[torch.from_numpy(here)] = values.float()
        return out

    def batches(
        self,
        batch_size: int,
        seed: int,
        start: int = 0,
        indices: Sequence[int] | npt.NDArray[Any] | torch.Tensor | None = None,
    ) -> Iterator[torch.Tensor]:
        """One epoch: every example once (of `indices`, or of all), in an order that the seed decides, [n, G, D].

        The last batch may be smaller. `start` skips that many batches, to go on in the middle of an epoch.
        """
        if batch_size < 1 or start < 0:
            raise argument_error(
                "batch_size",
                expected="a batch size of at least 1 and a start of at least 0",
                got=f"batch_size={batch_size}, start={start}",
                remedy="start counts batches.",
            )
        chosen = np.arange(len(self)) if indices is None else self._indices(indices)
        order = torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed)).numpy()
        for begin in range(start * batch_size, len(chosen), batch_size):
            yield self.take(chosen[order[begin : begin + batch_size]])

    # Pictures

    def canvas(self, image_id: int) -> npt.NDArray[np.uint8]:
        """The RGB picture that was transformed, uint8 [h, w, 3]; for tensor sources a picture of the values."""
        shard, local = self._locate(image_id)
        return np.array(self._shard(shard).canvases[local])

    def positions_of(self, i: int) -> tuple[int, int]:
        """Example i's position (x, y), a pixel of the layer's map."""
        example = int(self._indices([i])[0])
        shard, local = self._locate(example // self.stored.positions)
        x, y = self._shard(shard).positions[local, example % self.stored.positions]
        return int(x), int(y)

    def centres(self, image_id: int) -> npt.NDArray[np.float64]:
        """The canvas pixels (x, y) at the centres of the receptive fields of an image's positions, [P, 2]."""
        shard, local = self._locate(image_id)
        return self.geometry.canvas_xy(np.array(self._shard(shard).positions[local]))

    def example(self, i: int) -> Example:
        """Where example i comes from."""
        image_id = int(self._indices([i])[0]) // self.stored.positions
        position = self.positions_of(i)
        x, y = self.geometry.canvas_xy(position)
        return Example(image_id, self.image_names[image_id], position, (float(x), float(y)))

    def patch(self, i: int, element: int = 0, size: int | None = None) -> npt.NDArray[np.uint8]:
        """What the network saw around example i under element g: T_g x around g·p, uint8 [size, size, 3].

        `size` in canvas pixels; by default the receptive field, within 15 and 64.
        """
        example = self.example(i)
        if size is None:
            size = min(max(self.lattice.receptive_field, PATCH_SIDES[0]), PATCH_SIDES[1])
            # The patch's middle on a pixel (or between two) as the position is: multiples of 90° are copies.
            size += int((size - 1) % 2 != round(2 * example.xy[0]) % 2)
        canvas = torch.from_numpy(self.canvas(example.image_id)).permute(2, 0, 1)[None].float()
        action = as_action(self.group, self.index["settings"].get("action", PlaneAction.kind))
        turned = action.transform(canvas, [element], Frame(example.xy, size=(size, size)))
        return turned[0, 0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()

    def _locate(self, image_id: int) -> tuple[int, int]:
        if not 0 <= image_id < len(self.image_names):
            raise IndexError(f"image {image_id} of a store of {len(self.image_names)}")
        shard = int(np.searchsorted(self._starts, image_id, side="right") - 1)
        return shard, int(image_id - self._starts[shard])

    def _indices(self, indices: Sequence[int] | npt.NDArray[Any] | torch.Tensor) -> npt.NDArray[np.int64]:
        array = np.asarray(indices)
        if array.dtype == np.bool_ and array.shape == (len(self),):
            array = np.flatnonzero(array)
        if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
            raise argument_error(
                "indices",
                expected="a one-dimensional sequence of whole numbers",
                got=f"{array.dtype} of shape {array.shape}",
                remedy="store[i:j] and store.take([0, 5, 7]) both work.",
            )
        wanted = array.astype(np.int64)
        wanted = np.where(wanted < 0, wanted + len(self), wanted)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"example {array[(wanted < 0) | (wanted >= len(self))][0]} of a store of {len(self)}")
        return wanted


def read_index(folder: Path) -> dict[str, Any] | None:
    """The index of the store in a directory, finished or not; None without one; DataError for a damaged one."""
    path = folder / "index.json"
    if not path.exists():
        return None
    try:
        index = read_json(path)
        if index["format"] != FORMAT:
            raise ValueError(f"format {index['format']!r}")
        version = index["format_version"]
        missing = [name for name in _REQUIRED if version == FORMAT_VERSION and name not in index]
        if missing:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the index of an orbit store ({error}). Choose another directory.") from error
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path} has format version {version}; this groupcc reads {FORMAT_VERSION}. "
            "Harvest again, or use the groupcc that wrote it."
        )
    return dict(index)
