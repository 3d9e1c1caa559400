"""Trains the equivariant net: `python -m groupcc.zoo.train_equivariant --out FILE`.

The task is that of `groupcc.zoo.train_net`: to tell which of the training photographs an upright 65-pixel crop comes
from. What the net looks at is learned; that its filters come in all poses of D4 is not.

A penalty keeps the filters of the layer `second` from firing together, and another from not firing at all (as in
Bardes et al. 2022). Without them many fire at the same places, and a dictionary of few active latents has no reason to
hold single filters.

Determinism: as in `groupcc.zoo.train_net`.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from groupcc.errors import argument_error
from groupcc.files import atomic_write, sha256_file, write_json
from groupcc.zoo.equivariant import EquivariantNet, equivariant_net
from groupcc.zoo.photographs import Photograph, photographs
from groupcc.zoo.train_net import CropSource, accuracy, augment

__all__ = ["EquivariantTrainConfig", "main", "train_equivariant"]


SPREAD = 0.3
"""Least standard deviation of a channel of `second`, by which the firing is measured."""


@dataclass(frozen=True)
class EquivariantTrainConfig:
    """How the net is trained.

    Weights in the loss: of `decorrelation`, how much the channels of `second` fire together (`together`); of `firing`,
    how far their standard deviations are below `SPREAD`, as a share.
    """

    steps: int = 450
    batch_size: int = 48
    learning_rate: float = 1e-2
    decorrelation: float = 0.3
    firing: float = 3.0
    seed: int = 0
    threads: int = 1


def train_equivariant(
    out: str | Path, config: EquivariantTrainConfig | None = None, *, progress: bool = True, eval_crops: int = 650
) -> dict[str, Any]:
    """Trains the net and writes `out` (float16 safetensors) and, beside it, a .json with its checksum and metrics.

    AdamW with a one-cycle learning rate and cross-entropy.

    Args:
        out: weights file; its name must end in .safetensors.
        config: None for the settings that made the bundled weights.
        progress: show a progress bar.
        eval_crops: crops that accuracy is measured on.

    Returns:
        What the .json holds: `sha256`, `config`, `classes`, `accuracy` (train, held_out_regions), `active` (the share
        of channels of `second` that are not 0), `final_loss`, `seconds`, `versions`.

    Raises:
        ArgumentError: `out` has another suffix.
        DataError: the photographs can't be read.
    """
    out, config = Path(out), config or EquivariantTrainConfig()
    if out.suffix != ".safetensors":
        raise argument_error("out", expected="a name ending in .safetensors", got=str(out), remedy="Rename it.")
    began = time.perf_counter()
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        images = photographs("train")
        net, loss = _trained(images, config, progress)
        state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
        atomic_write(out, save({key: value.to(torch.float16).contiguous() for key, value in sorted(state.items())}))
        record: dict[str, Any] = {"sha256": sha256_file(out), "config": asdict(config)}
        write_json(out.with_suffix(".json"), record)
        record |= _measured(equivariant_net(out), images, eval_crops) | {"final_loss": loss}
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
    record["seconds"] = round(time.perf_counter() - began, 1)
    record["versions"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    write_json(out.with_suffix(".json"), record)
    return record


def _trained(
    images: Sequence[Photograph], config: EquivariantTrainConfig, progress: bool
) -> tuple[EquivariantNet, float]:
    """Returns the net and the running mean of its loss."""
    source = CropSource(images, held_out=False, seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        net = EquivariantNet(len(images))
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=config.steps + 1, pct_start=0.15
    )
    truth = net.truth("second")
    channels = truth.atom_base * truth.group.order + truth.atom_pose  # one of those that are equal
    seen: list[Tensor] = []
    net.second.register_forward_hook(lambda module, inputs, output: seen.append(output))
    average = float("nan")
    bar = tqdm(range(config.steps), desc="training the equivariant net", disable=not progress)
    for step in bar:
        crops, labels = source.draw(config.batch_size)
        loss = F.cross_entropy(net(augment(crops, generator)), labels)
        maps = seen.pop()[:, channels]
        too_still = (1 - maps.transpose(0, 1).flatten(1).std(1) / SPREAD).relu().mean()
        loss = loss + config.decorrelation * together(maps) + config.firing * too_still
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        bar.set_postfix(loss=f"{average:.3f}", refresh=False)
    return net, average


def together(maps: Tensor) -> Tensor:
    """Returns how alike channels are, [B, C, H, W] → []: the mean sum of squared correlations with all others."""
    centred = maps.transpose(0, 1).flatten(1)
    centred = centred - centred.mean(1, keepdim=True)
    unit = F.normalize(centred, dim=1, eps=1e-3)
    correlation = unit @ unit.T
    return (correlation.square().sum() - correlation.diagonal().square().sum()) / len(unit)


@torch.no_grad()
def _measured(net: EquivariantNet, images: Sequence[Photograph], crops: int) -> dict[str, Any]:
    active: list[float] = []
    handle = net.second.register_forward_hook(lambda m, i, output: active.append(float((output > 0).float().mean())))
    shares = {
        name: accuracy(net, images, held_out=held_out, count=crops)
        for name, held_out in (("train", False), ("held_out_regions", True))
    }
    handle.remove()
    return {
        "classes": [image.name for image in images],
        "accuracy": shares,
        "active": round(sum(active) / len(active), 4),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    defaults = EquivariantTrainConfig()
    parser = argparse.ArgumentParser(
        prog="python -m groupcc.zoo.train_equivariant", description="Train the equivariant net."
    )
    parser.add_argument("--out", required=True, help="weights file to write (.safetensors; a .json goes beside it)")
    for name, help_ in (("steps", "training steps"), ("seed", "random seed"), ("threads", "CPU threads")):
        parser.add_argument(
            f"--{name}", type=int, default=getattr(defaults, name), help=f"{help_} (default %(default)s)"
        )
    for name in ("decorrelation", "firing"):
        parser.add_argument(
            f"--{name}", type=float, default=getattr(defaults, name), help="weight in the loss (default %(default)s)"
        )
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    record = train_equivariant(out, EquivariantTrainConfig(**options))
    shares = record["accuracy"]
    print(
        f"{out}: {record['seconds']:.0f} s, accuracy {shares['train']:.3f} on the trained parts, "
        f"{shares['held_out_regions']:.3f} on held-out parts of the {len(record['classes'])} photographs; "
        f"{record['active']:.1%} of the channels of second are active"
    )


if __name__ == "__main__":
    main()
