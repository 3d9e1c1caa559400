"""What must be decided before PyTorch and Triton are imported, and fixtures of all packages.

Where workers run side by side (`pytest -n`), each takes its share of the processor. Without a GPU, Triton kernels are
tested in Triton's interpreter.
"""

import importlib
import os
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from groupcc import ops
from helpers.backends import DEVICE, ISAS

SLOW = frozenset((Path(__file__).parent / "slow.txt").read_text(encoding="utf-8").split())
"""Tests of which a case takes three quarters of a second of processor time, or all cases together one second."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.nodeid.split("[")[0].removeprefix("tests/") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(params=["reference", "cpp", "triton"])
def device(request):
    """The device for tensors while each backend in turn is in force."""
    if request.param == "cpp" and not ISAS:
        pytest.skip("no extension")
    if request.param == "triton":
        pytest.importorskip("triton")
        from helpers import interpreter  # noqa: F401  (rounds to bfloat16 as GPUs do)
    with ops.use_backend(request.param):
        yield DEVICE.get(request.param, "cpu")


@pytest.fixture
def script(monkeypatch):
    """Imports a script in benchmarks/ by its name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    return importlib.import_module
