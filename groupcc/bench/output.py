"""What bench prints and writes: a line for each comparison, CSV, a Markdown table, and a plot as SVG."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import math
import platform
import subprocess
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch

import groupcc
from groupcc.bench.timing import Rates
from groupcc.files import atomic_write

__all__ = ["Row", "curves", "header", "line", "machine", "markdown", "plot", "write"]

_COLUMNS = (
    "op", "case", "dtype", "backend", "ms", "against", "its ms", "times as fast", "goal", "floor ms", "of the floor",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One comparison: medians in ms; `goal`, how many times as fast ours should be; `floor` in ms."""

    op: str
    case: str
    dtype: str
    backend: str
    ms: float
    against: str
    against_ms: float
    goal: float | None
    floor: float

    @property
    def ratio(self) -> float:
        """How many times as fast ours is."""
        return self.against_ms / self.ms

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None where there is none."""
        return None if self.goal is None else self.ratio >= self.goal

    def cells(self) -> tuple[str, ...]:
        """The row in the order of the table's columns."""
        goal = "" if self.goal is None else f"{self.goal:.3g} {'met' if self.met else 'missed'}"
        return (
            self.op, self.case, self.dtype, self.backend, _ms(self.ms), self.against, _ms(self.against_ms),
            f"{self.ratio:.2f}", goal, _ms(self.floor), f"{self.ms / self.floor:.1f}",
        )  # fmt: skip


def _ms(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def machine(device: torch.device, rates: Rates, *, warmed: bool, repeats: int) -> list[str]:
    """Lines that say where and with what the figures were taken."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_cpu()}, {_kernels()}"
    versions = [f"{package} {version}" for package in _PACKAGES if (version := _version(package))]
    gemm = ", ".join(f"{rate / 1e9:.0f} GFLOP/s ({str(dtype)[6:]})" for dtype, rate in rates.gemm.items())
    memory = "warm memory for outputs" if warmed else "outputs in memory as the allocator gives it"
    return [
        f"{name}, {torch.get_num_threads()} threads; {platform.system()}, Python {platform.python_version()}",
        f"groupcc {groupcc.__version__} ({_commit()}), {', '.join(versions)}",
        f"copy {rates.copy / 1e9:.1f} GB/s (read plus written), GEMM {gemm}; the floor is the larger of bytes and "
        "FLOPs over these",
        f"medians of {repeats}, sides taking turns; {memory}",
    ]


_PACKAGES = (
    "torch", "triton", "numpy", "onnxruntime", "faiss-cpu", "eai-sparsify", "overcomplete", "dictionary-learning",
)  # fmt: skip


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(text.split(":", 1)[1].strip() for text in lines if text.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _kernels() -> str:
    try:
        from groupcc import _C
    except ImportError:
        return "no compiled kernels"
    return f"{_C.isa()} kernels"


def _commit() -> str:
    """The commit of the source tree that groupcc was imported from, marked where files differ from it."""
    try:
        # Fails where the package lies in some other repository, as one installed into its .venv does.
        _git("ls-files", "--error-unmatch", "groupcc/__init__.py", "csrc")
        changed = _git("status", "--porcelain", "groupcc", "csrc", "setup.py")
        return f"commit {_git('rev-parse', '--short', 'HEAD')}{' and changes' if changed else ''}"
    except (OSError, subprocess.CalledProcessError):
        return "installed, no commit known"


def _git(*arguments: str) -> str:
    root = str(Path(groupcc.__file__).parents[1])
    return subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=True).stdout.strip()


_WIDTHS = (20, 68, 9, 9, 8, 22, 8, 13, 12, 8, 12)


def header() -> str:
    """The columns' names, for a terminal."""
    return _aligned(_COLUMNS)


def line(row: Row) -> str:
    """A row, for a terminal."""
    return _aligned(row.cells())


def _aligned(cells: tuple[str, ...]) -> str:
    left = {"op", "case", "dtype", "backend", "against"}
    padded = (
        cell.ljust(width) if name in left else cell.rjust(width)
        for name, cell, width in zip(_COLUMNS, cells, _WIDTHS, strict=True)
    )
    return " ".join(padded).rstrip()


def markdown(rows: list[Row], about: list[str]) -> str:
    """The table under the lines `about` machine and versions."""
    table = [_COLUMNS, tuple("---" for _ in _COLUMNS), *(row.cells() for row in rows)]
    return "\n\n".join(about) + "\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in table)


def write(out: Path, rows: list[Row], about: list[str]) -> None:
    """bench.csv (full precision), bench.md and bench.svg in the directory `out`."""
    out.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in rows:
        goal = "" if row.goal is None else row.goal
        numbers = (row.ms, row.against, row.against_ms, row.ratio, goal, row.floor, row.ms / row.floor)
        table.writerow((row.op, row.case, row.dtype, row.backend, *numbers))
    atomic_write(out / "bench.csv", text.getvalue())
    atomic_write(out / "bench.md", markdown(rows, about))
    atomic_write(out / "bench.svg", plot(rows, about))


# Okabe and Ito's colours, apart for every common colour blindness; ours has the strongest.
_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999")
# There are more sides than colours: each round through the colours has another shape, and other dashes.
_SHAPES = ("M-5 0A5 5 0 1 0 5 0A5 5 0 1 0 -5 0Z", "M-4.5 -4.5H4.5V4.5H-4.5Z", "M0 -6L6 5H-6Z")
_DASHES = ("", "6 5", "2 4", "12 4 2 4")


def plot(rows: list[Row], about: list[str]) -> str:
    """Every case as a line of dots on a logarithmic axis of milliseconds, its floor as a tick. SVG."""
    lines: dict[str, dict[str, float]] = {}
    floors: dict[str, float] = {}
    for row in rows:
        name = f"{row.op}  {row.case}"
        lines.setdefault(name, {})[row.backend] = row.ms
        lines[name][row.against] = row.against_ms
        floors[name] = row.floor
    sides = list(dict.fromkeys(side for times in lines.values() for side in times))
    ours = [side for side in sides if side in {row.backend for row in rows}]
    order = ours + [side for side in sides if side not in ours]
    numbers = {side: i for i, side in enumerate(order)}
    values = [value for times in lines.values() for value in times.values()] + list(floors.values())
    low, high = math.floor(math.log10(min(values, default=1.0))), math.ceil(math.log10(max(values, default=10.0)))
    left, width, step, top = 440, 560, 20, 30 + 16 * len(about)

    def x(ms: float) -> float:
        return round(left + width * (math.log10(ms) - low) / max(high - low, 1), 1)

    bottom = top + step * len(lines)
    parts = [f'<text x="12" y="{20 + 16 * i}" class="about">{escape(text)}</text>' for i, text in enumerate(about)]
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<path class="grid" d="M{at} {top}V{bottom}"/>')
        parts.append(f'<text x="{at}" y="{bottom + 16}" text-anchor="middle">{10.0**power:g} ms</text>')
    for i, (name, times) in enumerate(lines.items()):
        y = top + step * (i + 0.5)
        parts.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<path class="floor" d="M{x(floors[name])} {y - 7}V{y + 7}"/>')
        for side in reversed(order):  # ours last, on top
            if side in times:
                shown = f"{name}: {side} {_ms(times[side])} ms"
                parts.append(_mark(numbers[side], x(times[side]), y, shown))
    at, y = 12.0, bottom + 40
    for side in [*order, "floor"]:
        taken = 32 + 7.0 * len(side)
        if at + taken > left + width + 40:
            at, y = 12.0, y + 18
        floor = f'<path class="floor" d="M{at + 5} {y - 11}V{y + 3}"/>'
        parts.append(floor if side == "floor" else _mark(numbers[side], at + 5, y - 4, side))
        parts.append(f'<text x="{at + 15}" y="{y}">{escape(side)}</text>')
        at += taken
    style = (
        "text{font:12px sans-serif;fill:#222}.about{fill:#666}.grid{stroke:#ddd}.floor{stroke:#222;stroke-width:2}"
        "svg{background:#fff}"
    )
    size = f'width="{left + width + 40}" height="{y + 16}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(parts)}</svg>\n'


def _mark(number: int, x: float, y: float, title: str) -> str:
    colour = _COLOURS[number % len(_COLOURS)]
    shape = _SHAPES[number // len(_COLOURS) % len(_SHAPES)]
    return f'<path transform="translate({x} {y})" fill="{colour}" d="{shape}"><title>{escape(title)}</title></path>'


def curves(lines: dict[str, list[float]], across: str, up: str) -> str:
    """Each side's values over 0, 1, …, on a logarithmic axis. SVG."""
    finite = [value for values in lines.values() for value in values if value > 0]
    low, high = math.floor(math.log10(min(finite, default=0.1))), math.ceil(math.log10(max(finite, default=1.0)))
    length = max((len(values) for values in lines.values()), default=2)
    left, top, width, height = 60, 20, 560, 320
    parts = []
    for power in range(low, high + 1):
        y = round(top + height * (high - power) / max(high - low, 1), 1)
        parts.append(f'<path class="grid" d="M{left} {y}H{left + width}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{10.0**power:g}</text>')
    for i, (name, values) in enumerate(lines.items()):
        points = [
            f"{left + width * x / max(length - 1, 1):.1f} "
            f"{top + height * (high - math.log10(value)) / max(high - low, 1):.1f}"
            for x, value in enumerate(values)
            if value > 0
        ]
        # Where two lie on each other, the dashes let the lower one show.
        dash = _DASHES[(i % 2 + 2 * (i // len(_COLOURS))) % len(_DASHES)]
        dashes = f' stroke-dasharray="{dash}"' if dash else ""
        colour = _COLOURS[i % len(_COLOURS)]
        parts.append(f'<path fill="none" stroke="{colour}" stroke-width="2"{dashes} d="M{"L".join(points)}"/>')
        y = top + 16 * i + 10
        parts.append(f'<path stroke="{colour}" stroke-width="2"{dashes} d="M{left + width + 16} {y - 4}h24"/>')
        parts.append(f'<text x="{left + width + 46}" y="{y}">{escape(name)}</text>')
    parts.append(f'<text x="{left + width}" y="{top + height + 20}" text-anchor="end">{across}, to {length - 1}</text>')
    parts.append(f'<text x="{left}" y="{top - 6}">{up}</text>')
    style = "text{font:12px sans-serif;fill:#222}.grid{stroke:#ddd}svg{background:#fff}"
    size = f'width="{left + width + 300}" height="{top + height + 36}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{style}</style>{"".join(parts)}</svg>\n'
