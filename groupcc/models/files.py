"""A crosscoder on disk: a directory with cfg.json and crosscoder.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from groupcc.errors import DataError
from groupcc.files import atomic_directory, read_json, save_tensors, sha256_file, write_json
from groupcc.models.dictionary import Dictionary

__all__ = [
    "CONFIG_FILE",
    "FORMAT_VERSION",
    "WEIGHTS_FILE",
    "Stored",
    "in_present_layout",
    "read",
    "save",
    "write_files",
]

FORMAT_VERSION = 2
"""2: W_enc is stored as [L, G or 1, D]. 1: as [G or 1, D, L]; the rest is the same."""
READABLE = (1, 2)
ARCHITECTURE = "GroupCrosscoder"
CONFIG_FILE = "cfg.json"
WEIGHTS_FILE = "crosscoder.safetensors"


class Stored(NamedTuple):
    """What a directory holds: plain values of the configuration, weights in today's layout, and `version`, the format
    of the files."""

    directory: Path
    config: dict[str, Any]
    weights: dict[str, torch.Tensor]
    provenance: dict[str, Any]
    version: int


def save(crosscoder: Dictionary, directory: Path) -> Path:
    """Writes the crosscoder to `directory`, atomically; returns it. ArgumentError where other files are in it."""
    with atomic_directory(directory, own=(CONFIG_FILE, WEIGHTS_FILE)) as temporary:
        write_files(crosscoder, temporary)
    return directory


def write_files(crosscoder: Dictionary, directory: Path) -> None:
    """Writes the two files into an existing directory."""
    save_tensors(dict(crosscoder.state()), directory / WEIGHTS_FILE)
    write_json(
        directory / CONFIG_FILE,
        {
            "format_version": FORMAT_VERSION,
            "architecture": ARCHITECTURE,
            "config": crosscoder.config.to_dict(),
            "provenance": crosscoder.provenance,
            "weights_sha256": sha256_file(directory / WEIGHTS_FILE),
        },
    )


def in_present_layout(tensors: dict[str, torch.Tensor], version: int) -> dict[str, torch.Tensor]:
    """Returns parameters, or optimizer slots named `slot.parameter`, of a file of this version in today's layout."""

    def convert(name: str, tensor: torch.Tensor) -> torch.Tensor:
        latents_last = version == 1 and name.split(".")[-1] == "W_enc" and tensor.dim() == 3
        return tensor.permute(2, 0, 1).contiguous() if latents_last else tensor

    return {name: convert(name, tensor) for name, tensor in tensors.items()}


def read(directory: Path) -> Stored:
    """Reads what `save` wrote; DataError if a file is missing, damaged, or of another format."""
    config_path, weights_path = directory / CONFIG_FILE, directory / WEIGHTS_FILE
    for path in (config_path, weights_path):
        if not path.is_file():
            raise DataError(f"{path} is missing. A crosscoder is a directory with {CONFIG_FILE} and {WEIGHTS_FILE}.")
    try:
        header = read_json(config_path)
        version, architecture = header["format_version"], header["architecture"]
        config, digest = header["config"], header["weights_sha256"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{config_path} is damaged ({error!r}). Restore it or save the crosscoder again.") from error
    if version not in READABLE or architecture != ARCHITECTURE:
        raise DataError(
            f"{config_path} is format {version} of {architecture}; this groupcc reads formats "
            f"{' and '.join(map(str, READABLE))} of {ARCHITECTURE}. Use the groupcc that wrote it."
        )
    if sha256_file(weights_path) != digest:
        raise DataError(f"{weights_path} is damaged: its SHA-256 is not the recorded one. Restore it from a copy.")
    try:
        weights = in_present_layout(load_file(weights_path), version)
    except SafetensorError as error:
        raise DataError(f"{directory} does not hold a usable crosscoder: {error}") from error
    return Stored(directory, config, weights, header.get("provenance", {}), version)
