"""Small stores of a tiny net, for the tests of the orbit store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from groupcc.harvesting import OrbitStore, harvest
from helpers.nets import TinyNet, write_photographs

SETTINGS: dict[str, Any] = {"input_size": 56, "progress": False, "shard_images": 2}


def run(images: object, out: Path | None = None, **options: Any) -> OrbitStore:
    return harvest(TinyNet(), "body", images, "D4", out=out, **(SETTINGS | options))


@pytest.fixture(scope="module", name="folder")
def photograph_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    write_photographs(path, 7)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupted(Exception):  # noqa: N818
    pass


def stop_after(images: int, net: TinyNet) -> None:
    """Makes the net fail in the forward pass after that many images (8 elements a pass)."""
    count = 0

    def hook(module: torch.nn.Module, args: tuple[torch.Tensor]) -> None:
        nonlocal count
        count += args[0].shape[0] == 8
        if count > images:
            raise Interrupted

    net.first.register_forward_pre_hook(hook)
