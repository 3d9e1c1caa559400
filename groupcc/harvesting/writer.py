"""Writing an orbit store shard by shard, so that a killed harvest goes on after the last shard that it finished."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from groupcc.errors import ArgumentError, DataError, argument_error
from groupcc.files import directory_lock, write_json
from groupcc.harvesting.rounding import Rounding, check_loss
from groupcc.harvesting.shards import DTYPES, ImageShapes, ShardArrays, damage, write_shard
from groupcc.harvesting.store import FORMAT, FORMAT_VERSION, OrbitStore, read_index

__all__ = ["Harvested", "StoreWriter", "resumable_index"]


@dataclass(frozen=True)
class Harvested:
    """One image's orbits, and where they come from.

    - `index` in the source, and `name`.
    - `group`: the key of the photograph; None if the image is a photograph of its own.
    - `acts_PGD`: float32, and in the storage dtype once the writer has them.
    - `canvas`: what was transformed, uint8 [h, w, 3]. `positions` [P, 2].
    """

    index: int
    name: str
    group: str | None
    acts_PGD: torch.Tensor
    canvas: npt.NDArray[np.uint8]
    positions: npt.NDArray[np.int64]


def resumable_index(folder: Path) -> dict[str, Any] | None:
    """The index that a harvest into this directory would go on from; None for a new or empty directory.

    Raises:
        ArgumentError: the directory holds something else than an orbit store.
    """
    if folder.exists() and not folder.is_dir():
        raise argument_error(
            "out", expected="a directory", got=f"{str(folder)!r}, a file", remedy="Choose another path."
        )
    index = read_index(folder)
    if index is None and folder.is_dir():
        # A harvest killed before its first shard may leave a temporary file.
        strangers = sorted(path.name for path in folder.iterdir() if not _is_ours(path))
        if strangers:
            raise argument_error(
                "out",
                expected="a new or empty directory, or an orbit store to go on with",
                got=f"{str(folder)!r}, which holds {', '.join(strangers[:3])}",
                remedy="Choose another directory.",
            )
    return index


class StoreWriter:
    """Collects images into shards. With `folder` None everything stays in memory.

    A shard is on disk before the index that names it, and the index is replaced in one rename: whatever happens, the
    directory holds a store of whole shards.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        settings: dict[str, Any],
        geometry: dict[str, Any],
        shapes: ImageShapes,
        shard_images: int,
    ) -> None:
        self.folder = folder
        self.shapes = shapes
        self._pending: list[Harvested] = []
        self._rounding = Rounding()
        self._skipped: list[dict[str, Any]] = []
        self._memory: list[ShardArrays] = []
        self.index: dict[str, Any] = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "complete": False,
            "settings": settings,
            "geometry": geometry,
            "layout": {**vars(shapes), "canvas": list(shapes.canvas)},
            "shard_images": shard_images,
            "cursor": 0,
            "shards": [],
            "skipped": [],
        }

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Takes the directory for this process and picks up what an earlier harvest left in it.

        Raises:
            ArgumentError: it holds something else, or a store with other settings.
            DataError: it holds a damaged store, or another process is writing to it.
        """
        if self.folder is None:
            yield
            return
        resumable_index(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with directory_lock(self.folder, "harvesting into it"):
            previous = resumable_index(self.folder)
            if previous is None or not (previous["shards"] or previous["complete"]):
                self._write_index()  # where no shard is finished, the settings may be others
            else:
                self._go_on_from(previous)
            self._remove_leftovers()
            yield

    def _go_on_from(self, previous: dict[str, Any]) -> None:
        assert self.folder is not None
        check_settings(previous["settings"], self.index["settings"], self.folder)
        for record in previous["shards"]:
            wrong = damage(self.folder, record, self.shapes, checksums=not previous["complete"])
            if wrong:
                raise DataError(f"{self.folder}: {wrong}. Delete the directory and harvest again.")
        self.index = previous

    def _remove_leftovers(self) -> None:
        assert self.folder is not None
        recorded = {part["file"] for record in self.index["shards"] for part in record["files"].values()}
        for path in self.folder.iterdir():
            if _is_ours(path) and path.name not in recorded | {"index.json"}:
                path.unlink()

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return bool(self.index["complete"])

    @property
    def cursor(self) -> int:
        """How many items of the source the finished shards have used up."""
        return int(self.index["cursor"])

    @property
    def shard_images(self) -> int:
        """Images in a shard; as it was when the store was begun."""
        return int(self.index["shard_images"])

    @property
    def images(self) -> int:
        """Images harvested so far, those of the unfinished shard too."""
        return sum(record["images"] for record in self.index["shards"]) + len(self._pending)

    @property
    def skipped(self) -> list[dict[str, Any]]:
        """Images skipped so far."""
        return [*self.index["skipped"], *self._skipped]

    def used(self) -> dict[int, str]:
        """Returns the name of every item that the finished shards have used up, skipped ones too, by index in the
        source."""
        kept = {
            index: name
            for record in self.index["shards"]
            for index, name in zip(record["source_indices"], record["names"], strict=True)
        }
        return kept | {entry["index"]: entry["name"] for entry in self.index["skipped"]}

    def skip(self, index: int, name: str, reason: str) -> None:
        """Records an image that was left out."""
        self._skipped.append({"index": index, "name": name, "reason": reason})

    def add(self, image: Harvested) -> None:
        """Takes one image, which `finish_shard` writes.

        Raises:
            DataError: a value is too large for the storage dtype.
        """
        stored = image.acts_PGD.to(DTYPES[self.shapes.dtype])
        if not stored.isfinite().all():
            largest = float(image.acts_PGD.abs().max())
            raise DataError(
                f"image {image.name!r} has an activation of {largest:g}, too large for {self.shapes.dtype}. "
                'Harvest with dtype="float32".'
            )
        if stored.dtype != torch.float32:
            self._rounding.add(image.acts_PGD, stored)
        self._pending.append(replace(image, acts_PGD=stored.cpu()))

    def finish_shard(self, cursor: int) -> None:
        """Writes the images added since the last shard; `cursor` items of the source have then been used up.

        Raises:
            DataError: rounding to the storage dtype takes too much of what the shards say. This one is not written.
        """
        if not self._pending:
            return
        record: dict[str, Any] = {"images": len(self._pending)}
        if self.shapes.dtype != "float32":
            record["rounding"] = self._rounding.sums()
            shards = [*self.index["shards"], record]
            check_loss([shard["rounding"] for shard in shards if "rounding" in shard], self.shapes.dtype)
        arrays = ShardArrays(
            acts=torch.cat([image.acts_PGD for image in self._pending]),
            canvases=np.stack([image.canvas for image in self._pending]),
            positions=np.stack([image.positions for image in self._pending]).astype(np.int16),
        )
        files = {}
        if self.folder is None:
            self._memory.append(arrays)
        else:
            files = write_shard(self.folder, len(self.index["shards"]), arrays)
        record["names"] = [image.name for image in self._pending]
        record["source_indices"] = [image.index for image in self._pending]
        record["files"] = files
        groups = [image.group for image in self._pending if image.group is not None]
        if groups:
            record["groups"] = groups
        self.index["shards"].append(record)
        self.index["skipped"] = self.skipped
        self.index["cursor"] = cursor
        self._pending, self._rounding, self._skipped = [], Rounding(), []
        self._write_index()

    def finish(self, cursor: int) -> OrbitStore:
        """Writes what is left and gives the store."""
        if not self.complete:
            self.finish_shard(cursor)
            self.index["skipped"] = self.skipped
            self._skipped = []
            self.index["cursor"] = cursor
            self.index["complete"] = True
            self._write_index()
        return OrbitStore(self.index, self._memory if self.folder is None else None, self.folder)

    def _write_index(self) -> None:
        if self.folder is not None:
            write_json(self.folder / "index.json", self.index)


def _is_ours(path: Path) -> bool:
    shard = path.suffix == ".bin" and path.name.split("-")[0] in ("acts", "canvas", "positions")
    return shard or path.name == "index.json" or (path.name.startswith(".") and path.suffix == ".tmp")


def check_settings(before: dict[str, Any], now: dict[str, Any], folder: str | os.PathLike[str]) -> None:
    """ArgumentError that names the first setting in which a harvest differs from the store it would go on with."""
    for name in [*now, *(set(before) - set(now))]:
        if before.get(name) != now.get(name):
            raise ArgumentError(
                f"out: {folder} was harvested with {name}={before.get(name)!r}; now {name}={now.get(name)!r}. "
                "Choose another directory, or the same settings to go on."
            )
