"""doctor: versions, machine and backends, and why a backend is off."""

from __future__ import annotations

import importlib.metadata
import platform

import torch

import groupcc
from groupcc.errors import ArgumentError
from groupcc.ops import backend_status, current_backend

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
        f"  {'extension':14} {_extension()}",
        "",
        f"backends (now: {_current()}; choose with groupcc.use_backend or GROUPCC_BACKEND)",
    ]
    lines += [f"  {name:14} {status}" for name, status in backend_status().items()]
    return "\n".join(lines)


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


def _extension() -> str:
    try:
        from groupcc import _C
    except ImportError as error:
        return f"off ({error}): the pure-Python package works on the reference path"
    return f"groupcc._C is built and runs {_C.isa()} kernels; this CPU has {', '.join(_C.available_isas())}"
