"""Without a GPU, Triton kernels are tested in its interpreter, which must be asked for before Triton is imported."""

import importlib
import os
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from groupcc import ops
from helpers.backends import DEVICE, ISAS


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
