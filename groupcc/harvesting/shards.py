"""A shard: the orbits, canvases and positions of a few images, in memory or as three raw files."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from groupcc.errors import DataError
from groupcc.files import atomic_write, sha256_file

__all__ = ["DTYPES", "ArrayCache", "ImageShapes", "ShardArrays", "damage", "read_shard", "write_shard"]

DTYPES = {"float16": torch.float16, "float32": torch.float32, "bfloat16": torch.bfloat16}
_OPEN_SHARDS = 128


@dataclass(frozen=True)
class ImageShapes:
    """Shapes of what is stored for each image: orbits [P, G, D], a canvas [h, w, 3] and positions [P, 2]."""

    positions: int
    order: int
    d_in: int
    canvas: tuple[int, int]
    dtype: str

    @property
    def orbit_bytes(self) -> int:
        """Bytes of one image's orbits."""
        return self.positions * self.order * self.d_in * DTYPES[self.dtype].itemsize

    @property
    def image_bytes(self) -> int:
        """Bytes of everything stored for one image."""
        return self.orbit_bytes + 3 * self.canvas[0] * self.canvas[1] + 4 * self.positions

    def file_bytes(self, images: int) -> dict[str, int]:
        """Size of each file of a shard with this many images."""
        return {
            "acts": images * self.orbit_bytes,
            "canvas": images * 3 * self.canvas[0] * self.canvas[1],
            "positions": images * 4 * self.positions,
        }


@dataclass(frozen=True)
class ShardArrays:
    """One shard's contents: acts [images·P, G, D] (storage dtype), canvases uint8 [images, h, w, 3], positions
    int16 [images, P, 2]. Memory-mapped when it comes from files."""

    acts: torch.Tensor
    canvases: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int16]


def write_shard(folder: Path, number: int, arrays: ShardArrays) -> dict[str, Any]:
    """Writes a shard's files, each whole and on disk when this returns; their names and SHA-256."""
    contents = {
        # Bytes rather than numbers: NumPy has no bfloat16.
        "acts": arrays.acts.contiguous().view(torch.uint8).numpy(),
        "canvas": np.ascontiguousarray(arrays.canvases),
        "positions": np.ascontiguousarray(arrays.positions.astype("<i2")),
    }
    files = {}
    for part, content in contents.items():
        path = folder / f"{part}-{number:05d}.bin"
        content = content.reshape(-1)
        atomic_write(path, content.data)
        files[part] = {"file": path.name, "sha256": hashlib.sha256(content.data).hexdigest()}
    return files


def read_shard(folder: Path, record: dict[str, Any], shapes: ImageShapes) -> ShardArrays:
    """A shard's files, memory-mapped read-only."""
    images = record["images"]
    acts = _map(folder / record["files"]["acts"]["file"], np.uint8, (shapes.file_bytes(images)["acts"],))
    tensor = torch.from_numpy(acts).view(DTYPES[shapes.dtype])
    return ShardArrays(
        acts=tensor.reshape(images * shapes.positions, shapes.order, shapes.d_in),
        canvases=_map(folder / record["files"]["canvas"]["file"], np.uint8, (images, *shapes.canvas, 3)),
        positions=_map(folder / record["files"]["positions"]["file"], "<i2", (images, shapes.positions, 2)),
    )


def damage(folder: Path, record: dict[str, Any], shapes: ImageShapes, *, checksums: bool) -> str | None:
    """What is wrong with a recorded shard's files, or None."""
    for part, size in shapes.file_bytes(record["images"]).items():
        path = folder / record["files"][part]["file"]
        if not path.is_file():
            return f"{path.name} is missing"
        if path.stat().st_size != size:
            return f"{path.name} has {path.stat().st_size} bytes, not {size}"
        if checksums and sha256_file(path) != record["files"][part]["sha256"]:
            return f"{path.name} is damaged: its SHA-256 is not the recorded one"
    return None


class ArrayCache:
    """The most recently used shards, so that a store of thousands doesn't hold thousands of files open."""

    def __init__(self, read: Callable[[int], ShardArrays]) -> None:
        self._read = read
        self._open: OrderedDict[int, ShardArrays] = OrderedDict()

    def __call__(self, number: int) -> ShardArrays:
        if number in self._open:
            self._open.move_to_end(number)
        else:
            self._open[number] = self._read(number)
            if len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        return self._open[number]


def _map(path: Path, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    try:
        # Copy-on-write: torch warns about read-only arrays, and nothing written would reach the file.
        return np.memmap(path, dtype=dtype, mode="c", shape=shape)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read ({error}). Harvest again into an empty directory.") from error
