"""Atlas files: a directory of `atlas.json` and `atlas.safetensors`, checked when it is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from groupcc.errors import DataError
from groupcc.files import atomic_directory, read_json, save_tensors, sha256_file, write_json

__all__ = ["load", "save"]

FORMAT = "groupcc-atlas"
FORMAT_VERSION = 1
JSON_FILE, TENSOR_FILE = "atlas.json", "atlas.safetensors"
COMPANIONS = ("table.csv", "table.json", "inputs.json")
"""What the command line writes beside the atlas. Saving again removes them, as they belong to the atlas before."""

T = TypeVar("T")


def save(directory: Path, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Path:
    """Writes an atlas's plain values and its tensors. See [`Atlas.save`][groupcc.analysis.Atlas.save]."""
    with atomic_directory(directory, own=(JSON_FILE, TENSOR_FILE, *COMPANIONS)) as temporary:
        save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary / TENSOR_FILE)
        head = {"format": FORMAT, "format_version": FORMAT_VERSION}
        digest = {"tensors_sha256": sha256_file(temporary / TENSOR_FILE)}
        write_json(temporary / JSON_FILE, head | values | digest)
    return directory


def load(directory: Path, restore: Callable[[dict[str, Any], dict[str, torch.Tensor]], T]) -> T:
    """Returns what `restore` makes of the plain values and the tensors that `save` wrote.

    Raises:
        DataError: something is missing, damaged or of another version, or `restore` cannot use it.
    """
    try:
        values = read_json(directory / JSON_FILE)
        if values.get("format") != FORMAT or values.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{directory / JSON_FILE} is format {values.get('format')!r} version "
                f"{values.get('format_version')!r}; this groupcc reads {FORMAT!r} version {FORMAT_VERSION}. "
                "Run the analysis again."
            )
        if sha256_file(directory / TENSOR_FILE) != values["tensors_sha256"]:
            raise DataError(f"{directory / TENSOR_FILE} is damaged. Run the analysis again.")
        return restore(values, load_file(directory / TENSOR_FILE))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise DataError(f"{directory} holds no readable atlas ({error}). Run the analysis again.") from error
