"""Trains the bundled net: `python -m groupcc.zoo.train_net --out FILE`.

The task is to tell which of the training photographs a 65-pixel crop comes from. Crops are upright: their scale, place,
blur, brightness, contrast and colour vary, but nothing is ever rotated, reflected or transposed, so whatever symmetry
the net ends up with it has learned from the photographs.

The right-hand part of every photograph is kept out of training and serves to measure accuracy.

Determinism: the same seed, steps and thread count on the same machine and library versions write the same bytes. On
another machine convolutions round differently and the weights drift apart; their use does not depend on that.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from groupcc.errors import argument_error
from groupcc.files import atomic_write, sha256_file, write_json
from groupcc.zoo.net import MIN_SIZE, SmallInception, fold_batch_norm, load_net
from groupcc.zoo.photographs import Photograph, photographs

__all__ = ["CropSource", "NetTrainConfig", "augment", "main", "train_net"]

BLUR_RADIUS = 3
"""Taps on each side of the blur: crops are drawn larger by this margin."""

CROP = MIN_SIZE + 2 * BLUR_RADIUS
SCALES = (0.35, 0.45, 0.58, 0.75, 1.0, 1.3)
LARGEST_SIDE = 720
"""Larger photographs are first reduced to this many pixels on their longer side."""

TRAINED_PART = 0.7
"""Share of each photograph's width, from the left, that training sees."""


@dataclass(frozen=True)
class NetTrainConfig:
    """How the net is trained; `steps` and `threads` are fixed, not measured, so that a run can be repeated."""

    steps: int = 2400
    batch_size: int = 96
    learning_rate: float = 4e-3
    weight_decay: float = 1.0
    label_smoothing: float = 0.1
    seed: int = 0
    threads: int = 2


class CropSource:
    """Draws upright crops [B, 3, CROP, CROP], float in [0, 1], and the index of the photograph each comes from.

    Args:
        images: the photographs; an image's index is its class.
        held_out: draw from the right-hand part of each photograph in place of the rest.
        seed: of the stream of crops.
    """

    def __init__(self, images: Sequence[Photograph], *, held_out: bool, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._regions: list[list[np.ndarray]] = []
        for image in images:
            regions = [part for scale in SCALES if (part := _part(image.pixels, scale, held_out)) is not None]
            if not regions:
                raise argument_error(
                    "images",
                    expected=f"photographs with room for a {CROP}-pixel crop",
                    got=f"{image.name} of {image.pixels.shape[1]} x {image.pixels.shape[0]} pixels",
                    remedy="Leave it out.",
                )
            self._regions.append(regions)

    def draw(self, count: int) -> tuple[Tensor, Tensor]:
        """`count` crops and their classes: photograph, scale and place are each uniform and independent."""
        crops = np.empty((count, CROP, CROP, 3), np.uint8)
        labels = self._random.integers(len(self._regions), size=count)
        for row, label in enumerate(labels):
            regions = self._regions[label]
            region = regions[self._random.integers(len(regions))]
            y = self._random.integers(region.shape[0] - CROP + 1)
            x = self._random.integers(region.shape[1] - CROP + 1)
            crops[row] = region[y : y + CROP, x : x + CROP]
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)


def _part(pixels: np.ndarray, scale: float, held_out: bool) -> np.ndarray | None:
    """The trained or the held-out part of a photograph at a scale, or None where no crop fits in it."""
    height, width = pixels.shape[:2]
    scale *= min(1.0, LARGEST_SIDE / max(height, width))
    size = (round(width * scale), round(height * scale))
    scaled = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
    border = int(size[0] * TRAINED_PART)
    part = scaled[:, border:] if held_out else scaled[:, :border]
    return part if min(part.shape[:2]) >= CROP else None


def augment(crops: Tensor, generator: torch.Generator) -> Tensor:
    """Random isotropic blur, brightness, contrast, colour cast and loss of colour, drawn anew for each crop.

    A Gaussian of 0 to 1 pixel, then x ↦ mean + c·(x − mean) + b with c in 0.6..1.6 and b within 0.15, each channel
    times 0.85..1.15, seven crops in ten made grey, clamped to [0, 1]. Orientation and handedness are untouched.

    Args:
        crops: [B, 3, H, W] float in [0, 1].
        generator: source of every random number.

    Returns:
        [B, 3, H − 2·BLUR_RADIUS, W − 2·BLUR_RADIUS].
    """
    batch = crops.shape[0]

    def uniform(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(batch, channels, 1, 1, generator=generator)

    x = _blur(crops, uniform(0.0, 1.0))
    grey = (uniform(0.0, 1.0) < 0.7).to(x.dtype)
    x = x * uniform(0.85, 1.15, channels=3)
    x = x + grey * (x.mean(dim=1, keepdim=True) - x)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    contrast = 0.6 * (1.6 / 0.6) ** uniform(0.0, 1.0)
    return (mean + contrast * (x - mean) + uniform(-0.15, 0.15)).clamp(0, 1)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with a sigma per image, in pixels, without padding."""
    taps = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=x.dtype)
    kernel = torch.exp(-(taps**2) / (2 * sigma.clamp_min(1e-3) ** 2))
    kernel = kernel / kernel.sum(dim=-1, keepdim=True)
    height, width = (side - 2 * BLUR_RADIUS for side in x.shape[2:])
    x = torch.stack([kernel[..., i : i + 1] * x[..., i : i + width] for i in range(len(taps))]).sum(dim=0)
    return torch.stack([kernel[..., i : i + 1] * x[..., i : i + height, :] for i in range(len(taps))]).sum(dim=0)


@torch.no_grad()
def accuracy(net: nn.Module, images: Sequence[Photograph], *, held_out: bool, count: int) -> float:
    source, generator = CropSource(images, held_out=held_out, seed=1), torch.Generator().manual_seed(1)
    right = 0
    for start in range(0, count, 100):
        crops, labels = source.draw(min(100, count - start))
        right += int((net(augment(crops, generator)).argmax(dim=1) == labels).sum())
    return right / count


def train_net(
    out: str | Path, config: NetTrainConfig | None = None, *, progress: bool = True, eval_crops: int = 1300
) -> dict[str, Any]:
    """Trains the net and writes `out` (float16 safetensors) and, beside it, a .json with its checksum and metrics.

    AdamW with a one-cycle learning rate and cross-entropy; batch norms are folded into the convolutions at the end.

    Args:
        out: weights file; its name must end in .safetensors.
        config: None for the settings that made the bundled weights.
        progress: show a progress bar.
        eval_crops: crops that accuracy is measured on.

    Returns:
        What the .json holds: `sha256`, `config`, `classes`, `accuracy` (train, held_out_regions), `final_loss`,
        `seconds`, `versions`.

    Raises:
        ArgumentError: `out` has another suffix.
        DataError: the photographs can't be read.
    """
    out, config = Path(out), config or NetTrainConfig()
    if out.suffix != ".safetensors":
        raise argument_error("out", expected="a name ending in .safetensors", got=str(out), remedy="Rename it.")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    try:
        return _train_net(out, config, progress=progress, eval_crops=eval_crops)
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def _train_net(out: Path, config: NetTrainConfig, *, progress: bool, eval_crops: int) -> dict[str, Any]:
    began = time.perf_counter()
    images = photographs("train")
    source = CropSource(images, held_out=False, seed=config.seed)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = SmallInception(len(images), batch_norm=True).to(memory_format=torch.channels_last)
    decayed = [p for p in net.parameters() if p.ndim > 1]
    others = [p for p in net.parameters() if p.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=config.learning_rate,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=config.learning_rate, total_steps=config.steps + 1, pct_start=0.15
    )
    average = float("nan")
    bar = tqdm(range(config.steps), desc="training the net", disable=not progress)
    for step in bar:
        crops, labels = source.draw(config.batch_size)
        x = augment(crops, generator).contiguous(memory_format=torch.channels_last)
        loss = F.cross_entropy(net(x), labels, label_smoothing=config.label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        average = loss.item() if step == 0 else 0.98 * average + 0.02 * loss.item()
        bar.set_postfix(loss=f"{average:.3f}", refresh=False)
    state = fold_batch_norm(net).state_dict()
    atomic_write(out, save({key: value.to(torch.float16).contiguous() for key, value in sorted(state.items())}))
    record: dict[str, Any] = {"sha256": sha256_file(out)}
    write_json(out.with_suffix(".json"), record)
    trained = load_net(out)
    record |= {
        "config": asdict(config),
        "classes": [image.name for image in images],
        "accuracy": {
            "train": accuracy(trained, images, held_out=False, count=eval_crops),
            "held_out_regions": accuracy(trained, images, held_out=True, count=eval_crops),
        },
        "final_loss": average,
        "seconds": round(time.perf_counter() - began, 1),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()},
    }
    write_json(out.with_suffix(".json"), record)
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    defaults = NetTrainConfig()
    parser = argparse.ArgumentParser(prog="python -m groupcc.zoo.train_net", description="Train the bundled net.")
    parser.add_argument("--out", required=True, help="weights file to write (.safetensors; a .json goes beside it)")
    parser.add_argument("--steps", type=int, default=defaults.steps, help="training steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="random seed (default %(default)s)")
    parser.add_argument("--threads", type=int, default=defaults.threads, help="CPU threads (default %(default)s)")
    options = parser.parse_args(arguments)
    record = train_net(options.out, NetTrainConfig(steps=options.steps, seed=options.seed, threads=options.threads))
    accuracy = record["accuracy"]
    print(
        f"{options.out}: {record['seconds']:.0f} s, accuracy {accuracy['train']:.3f} on the trained parts, "
        f"{accuracy['held_out_regions']:.3f} on held-out parts of the {len(record['classes'])} photographs"
    )


if __name__ == "__main__":
    main()
