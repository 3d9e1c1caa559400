"""Runs an op on each implementation there is here: the reference, C++ for every instruction set, Triton."""

import contextlib

import pytest
import torch

from groupcc import ops

try:
    from groupcc import _C

    ISAS = _C.available_isas()
except ImportError:
    ISAS = []

IMPLEMENTATIONS = ["reference", *(f"cpp-{isa}" for isa in ISAS), "triton"]
COMPILED = IMPLEMENTATIONS[1:-1]
DEVICE = {"triton": "cuda" if torch.cuda.is_available() else "cpu"}


@contextlib.contextmanager
def running(implementation, op):
    """The op `op` runs on one of IMPLEMENTATIONS inside the block, which is given the device for its tensors."""
    backend, _, isa = implementation.partition("-")
    if backend != "reference":
        module = ops.registered_ops()[op].load(backend)
        if isinstance(module, str):
            pytest.skip(f"{op} on {backend}: {module}")
    if backend == "triton":
        from helpers import interpreter  # noqa: F401  (rounds to bfloat16 as GPUs do)
    before = _C.isa() if isa else None
    try:
        if isa:
            _C.set_isa(isa)
        with ops.use_backend(backend):
            yield DEVICE.get(backend, "cpu")
    finally:
        if isa:
            _C.set_isa(before)


def skip_without(dtype):
    """Skips where the backend in force has no kernel for `dtype`: the selections in Triton take no float64."""
    if dtype == torch.float64 and ops.current_backend() == "triton":
        pytest.skip("no float64 kernel")


def no_float64():
    """Whether the kernels in force take no float64: Triton's on a GPU. Its interpreter's do, but for the selections."""
    return ops.current_backend() == "triton" and torch.cuda.is_available()


def skip_on_gpu(dtype):
    """Skips float64 where `no_float64`."""
    if dtype == torch.float64 and no_float64():
        pytest.skip("no float64 kernel on a GPU")


def interpreted():
    """Whether kernels run in Triton's interpreter, some thousand times slower than anywhere else."""
    return ops.current_backend() == "triton" and not torch.cuda.is_available()
