"""doctor: versions, machine and backends, and why a backend is off."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import torch

import groupcc
from groupcc.errors import ArgumentError
from groupcc.ops import backend_status, current_backend, registered_ops
from groupcc.ops._dispatch import BACKENDS

__all__ = ["diagnosis"]

_PACKAGES = ("torch", "torchvision", "triton", "numpy", "pillow", "safetensors", "scikit-image", "tensorboard")
_EXTRAS = {"torchvision": "vision", "scikit-image": "demo", "tensorboard": "tensorboard"}


def diagnosis() -> str:
    """The text that `groupcc doctor` prints."""
    lines = [
        f"groupcc {groupcc.__version__}, Python {platform.python_version()}, {platform.platform()}",
        "",
        "packages",
    ]
    for name in _PACKAGES:
        lines.append(f"  {name:14} {_version(name)}")
    lines += [
        "",
        "machine",
        f"  {'cpu':14} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads",
        f"  {'cuda':14} {_cuda()}",
        "",
        "extension",
        *(f"  {name:14} {text}" for name, text in _extension().items()),
        "",
        f"backends (now: {_current()}; choose with groupcc.use_backend or GROUPCC_BACKEND)",
    ]
    for backend in BACKENDS:
        lines += _status(backend)
    lines += [
        "  auto takes cpp for CPU tensors, triton for CUDA tensors, and the reference where these don't run or would "
        "cost more"
    ]
    return "\n".join(lines)


def _status(backend: str) -> list[str]:
    """What the backend runs here; then, for each reason, the ops that it has and cannot run."""
    off: dict[str, list[str]] = {}
    for name, op in registered_ops().items():
        reason = op.why_off(backend)
        if reason is not None and backend in op.backends:
            off.setdefault(reason, []).append(name)
    status = backend_status()[backend]
    lines = [f"  {backend:14} {status}"]
    if len(off) > 1 or status.startswith("on"):
        lines += [f"  {'':14} off for {', '.join(names)}: {reason}" for reason, names in off.items()]
    return lines


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        extra = _EXTRAS.get(name)
        return f"not installed (pip install 'groupcc[{extra}]')" if extra else "not installed"


def _current() -> str:
    try:
        return current_backend()
    except ArgumentError as error:  # what it is here to find
        return f"none, {error}"


def _cuda() -> str:
    if not torch.cuda.is_available():
        return "no usable GPU" if torch.version.cuda else "torch was built without CUDA"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def _extension() -> dict[str, str]:
    try:
        from groupcc import _C
    except ImportError as error:
        return {"groupcc._C": f"off ({error}): the pure-Python package works on the reference path"}
    return {
        "groupcc._C": "built",
        "kernels for": f"{_C.isa()}; this CPU has {', '.join(_C.available_isas())} (GROUPCC_ISA chooses)",
        "threads": _threads(_C.openmp),
        "memory": f"each process keeps up to {_C.cache_limit() / 1e9:.1f} GB of freed outputs for reuse (README, "
        "Compiled kernels, says how to change it)",
    }


def _threads(openmp: bool) -> str:
    if not openmp:
        return "its own, since the compiler had no OpenMP: they compete with PyTorch's waiting threads"
    loaded = _openmp_libraries()
    if len(loaded) > 1:
        return f"OpenMP, but {len(loaded)} of its libraries are loaded and their threads compete: {', '.join(loaded)}"
    return "OpenMP" + (f", PyTorch's own pool ({loaded[0]})" if loaded else "")


def _openmp_libraries() -> list[str]:
    """The OpenMP runtimes in this process, where the system tells (Linux)."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in maps if line.count("/")}
    return sorted(path for path in paths if Path(path).name.startswith(("libgomp", "libiomp", "libomp")))
