"""Training checkpoints: directories that are whole or absent, two kept, the newest that verifies is loaded."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from groupcc.errors import DataError, GroupccWarning
from groupcc.files import atomic_directory, canonical_hash, read_json, save_tensors, sha256_file, write_json
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.models.files import CONFIG_FILE, WEIGHTS_FILE, in_present_layout, read, write_files

__all__ = ["CENTRE", "Checkpoint", "newest", "restore", "training_tensors", "write"]

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
BIASES, CENTRE = "biases", "centre"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint in memory; `crosscoder` takes activations as they are.

    `training`: what the run goes on from, by name: `<slot>.<parameter>` of the optimizer, `biases.<number>`, the
    biases before scale and centre were folded into them, and `centre`. Old checkpoints have slots alone.
    """

    path: Path
    crosscoder: GroupCrosscoder
    training: dict[str, torch.Tensor]
    state: dict[str, Any]


def write(
    root: Path,
    crosscoder: GroupCrosscoder,
    training: dict[str, torch.Tensor],
    state: dict[str, Any],
    keep: int,
) -> Path:
    """Writes `root/step-<n>` for state["step"], then removes all but the newest `keep` up to it.

    `crosscoder` must be folded. `training`: see `Checkpoint`. `state` is plain values.
    """
    target = root / f"step-{state['step']:09d}"
    with atomic_directory(target, own=(CONFIG_FILE, WEIGHTS_FILE, OPTIMIZER_FILE, STATE_FILE)) as temporary:
        write_files(crosscoder, temporary)
        save_tensors(training, temporary / OPTIMIZER_FILE)
        recorded = {**state, "optimizer_sha256": sha256_file(temporary / OPTIMIZER_FILE)}
        write_json(temporary / STATE_FILE, {**recorded, "checksum": canonical_hash(recorded)})
    directories = _directories(root)
    # Directories ahead of this one are damaged: the run would else have gone on from them.
    ahead = directories[directories.index(target) + 1 :]
    for old in [*ahead, *directories[: -len(ahead) - keep]]:
        shutil.rmtree(old)
    for leftover in [*root.glob(".step-*.tmp"), *root.glob(".step-*.old")]:
        shutil.rmtree(leftover)
    return target


def newest(root: Path) -> Checkpoint | None:
    """The newest checkpoint under `root` that verifies; damaged ones are passed over with a warning, each by name."""
    for path in reversed(_directories(root)):
        try:
            state = read_json(path / STATE_FILE)
            checksum = state.pop("checksum")
            if canonical_hash(state) != checksum:
                raise DataError(f"{STATE_FILE} is damaged")
            if sha256_file(path / OPTIMIZER_FILE) != state["optimizer_sha256"]:
                raise DataError(f"{OPTIMIZER_FILE} is damaged")
            stored = read(path)
            crosscoder = GroupCrosscoder.from_stored(stored)
            # One digit of it changed makes another crosscoder, not a damaged file.
            if crosscoder.config != CrosscoderConfig.from_dict(state["settings"]["crosscoder"]):
                raise DataError(f"{CONFIG_FILE} is damaged")
            training = in_present_layout(load_file(path / OPTIMIZER_FILE), stored.version)
            return Checkpoint(path, crosscoder, training, state)
        except (DataError, OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
            what = error if isinstance(error, (DataError, OSError)) else f"{STATE_FILE} is damaged ({error!r})"
            warnings.warn(f"checkpoint {path} is passed over: {what}", GroupccWarning, stacklevel=2)
    return None


def restore(checkpoint: Checkpoint, crosscoder: GroupCrosscoder, optimizer: torch.optim.Optimizer) -> None:
    """Puts weights, biases and optimizer state back; the crosscoder is as in training, not folded."""
    crosscoder.load_state_dict(checkpoint.crosscoder.state_dict())
    crosscoder.fold_scale_(1 / float(checkpoint.state["scale"]))
    biases = crosscoder.form.biases(crosscoder)
    names = [name for name, _ in crosscoder.named_parameters()]
    per_parameter: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in checkpoint.training.items():
        slot, _, name = key.partition(".")
        if slot == BIASES:
            with torch.no_grad():
                biases[int(name)].copy_(value)
        if slot in (BIASES, CENTRE):
            continue
        per_parameter.setdefault(names.index(name), {})[slot] = value
    saved = optimizer.state_dict()
    saved["state"] = per_parameter
    optimizer.load_state_dict(saved)


def training_tensors(
    crosscoder: GroupCrosscoder, optimizer: torch.optim.Optimizer, centre_GD: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Returns `Checkpoint.training` of a run whose crosscoder is not folded."""
    slots = {
        f"{slot}.{name}": value
        for name, parameter in crosscoder.named_parameters()
        for slot, value in optimizer.state[parameter].items()
    }
    biases = {f"{BIASES}.{number}": bias for number, bias in enumerate(crosscoder.form.biases(crosscoder))}
    tensors = {**slots, **biases, CENTRE: centre_GD}
    # Copies: folding changes biases in place.
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _directories(root: Path) -> list[Path]:
    return sorted(path for path in root.glob("step-" + "[0-9]" * 9) if path.is_dir())
