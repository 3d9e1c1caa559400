"""metrics.jsonl, TensorBoard and the progress bar."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from groupcc.errors import DataError
from groupcc.files import atomic_write
from groupcc.models import CrosscoderOutput

__all__ = ["MetricsLog", "read_metrics"]


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl; a last line cut off by a kill is left out. DataError for any other damage."""
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    # Text after the last newline is a line whose writing was cut off.
    records = []
    for number, line in enumerate(lines[:-1], 1):
        if not line:
            continue
        try:
            record = json.loads(line)
            record["step"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}, line {number}: expected a JSON object with a step; got {line[:60]!r}. Move the file away: "
                "training goes on without it."
            ) from error
        records.append(record)
    return records


class MetricsLog:
    """Writes each record to metrics.jsonl (flushed) and TensorBoard, and shows the last on a progress bar."""

    def __init__(
        self, directory: Path | None, *, start_step: int, steps: int, progress: bool, tensorboard: bool
    ) -> None:
        self._file = None
        self._board = None
        if directory is not None:
            path = directory / "metrics.jsonl"
            # A resumed run repeats the steps after its checkpoint; their old lines go.
            kept = [r for r in read_metrics(path) if r["step"] <= start_step] if path.exists() else []
            atomic_write(path, "".join(json.dumps(record) + "\n" for record in kept))
            self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115 (closed in close())
            if tensorboard:
                self._board = _summary_writer(directory / "tensorboard", start_step)
        from tqdm import tqdm

        self.bar = tqdm(
            total=steps, initial=start_step, desc="train", unit="step", disable=not progress, dynamic_ncols=True
        )

    def write(self, record: dict[str, Any]) -> None:
        """One line; `record["step"]` counts finished steps."""
        if self._file is not None:
            self._file.write(json.dumps(record) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in record.items():
                if isinstance(value, (int, float)) and name != "step":
                    self._board.add_scalar(name, value, record["step"])

    def training(
        self, done: int, out: CrosscoderOutput, dead_L: torch.Tensor, variance: float, figures: dict[str, float]
    ) -> None:
        """The line of a training step, and its figures on the bar. `variance`: that of the activations, scaled."""
        losses = {name: float(value.detach()) for name, value in out.losses.items()}
        fvu, l0 = losses["reconstruction"] / variance, float((out.latents.acts > 0).sum(1).float().mean())
        dead_fraction = float(dead_L.float().mean())
        self.write({"step": done, **losses, "fvu": fvu, "l0": l0, "dead_fraction": dead_fraction, **figures})
        self.show(fvu=fvu, l0=l0, dead_fraction=dead_fraction)

    def show(self, *, fvu: float, l0: float, dead_fraction: float) -> None:
        """Puts the figures on the bar."""
        self.bar.set_postfix_str(f"FVU {fvu:.4f}, L0 {l0:.1f}, dead {dead_fraction:.1%}", refresh=False)

    def close(self) -> None:
        self.bar.close()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _summary_writer(directory: Path, start_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        from groupcc.errors import argument_error

        raise argument_error(
            "tensorboard",
            expected="False where TensorBoard is not installed",
            got=True,
            remedy="pip install 'groupcc[tensorboard]'.",
        ) from error
    return SummaryWriter(str(directory), purge_step=start_step)
