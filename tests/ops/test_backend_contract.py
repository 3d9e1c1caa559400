"""A named backend runs its own kernels, or the parts that an op declares for it, or raises BackendError."""

import functools
import sys

import pytest
import torch

from groupcc import ops
from groupcc.errors import BackendError
from helpers.backends import DEVICE
from helpers.op_cases import OF_OP, inputs, outputs_and_gradients

OPS = ops.registered_ops()


def recorded(function, event, events):
    """The function, which first adds the event."""

    @functools.wraps(function)
    def run(*args, **kwargs):
        events.append(event)
        return function(*args, **kwargs)

    return run


@pytest.fixture
def events(monkeypatch):
    """What runs: (op, "reference" or the backend of the kernels)."""
    seen = []
    for name, op in OPS.items():
        for way in ("reference", "in_pytorch"):
            function = getattr(op, way)
            monkeypatch.setattr(op, way, recorded(function, (name, "reference"), seen), raising=False)
        for backend in op.backends:
            module = op.load(backend)  # why it is off, as a string, has neither
            for way in ("forward", "backward"):
                if hasattr(module, way):
                    monkeypatch.setattr(module, way, recorded(getattr(module, way), (name, backend), seen))
    # Kernels' modules could call a reference without the op.
    for path, module in list(sys.modules.items()):
        if path.startswith("groupcc.ops.") and not path.endswith(".reference"):
            for called, function in list(vars(module).items()):
                of = getattr(function, "__module__", None) or ""
                if of.endswith(".reference") and callable(function) and not isinstance(function, type):
                    event = (of.split(".")[2], "reference")
                    monkeypatch.setattr(module, called, recorded(function, event, seen))
    return seen


def breaches(seen, backend, gradients):
    """What ran that the named backend does not allow. `seen` must hold at least one event."""
    found = [event for event in seen if event[1] not in ("reference", backend)]
    ran = {name for name, way in seen if way == backend}
    for name in {name for name, way in seen if way == "reference"}:
        op = OPS[name]
        declared = backend in op.composed and (backend not in op.backends or gradients)
        if not declared or not ran & set(op.composed[backend]):
            found.append((name, "reference"))
    return found if ran else [*found, "no kernel"]


def backward_elsewhere(public, args, backend):
    """The op with gradients on a backend, whose backward pass is called under another."""
    leaves = [x.requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in args]
    with ops.use_backend(backend):
        results = public(*leaves)
    total = sum(
        x.float().square().sum() for x in (results if isinstance(results, tuple) else (results,)) if x.requires_grad
    )
    if torch.is_tensor(total):  # or it is a selection
        with ops.use_backend("reference"):
            total.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("backend", ["cpp", "triton"])
@pytest.mark.parametrize("name", OF_OP)
def test_a_named_backend_runs_its_kernels_or_raises(name, backend, dtype, events):
    """Forward alone, and with gradients. In float32 it runs wherever it can be imported."""
    op, public = OPS[OF_OP[name]], getattr(ops, name)
    device = DEVICE.get(backend, "cpu")
    for gradients in (False, True):
        args = [x.to(dtype) if torch.is_tensor(x) and x.is_floating_point() else x for x in inputs(name, device)]
        events.clear()
        try:
            if gradients:
                backward_elsewhere(public, args, backend)
            else:
                with ops.use_backend(backend):
                    public(*args)
        except BackendError:
            assert op.why_off(backend) or dtype != torch.float32
            assert not [event for event in events if event[1] != backend and backend not in OPS[event[0]].composed]
        else:
            assert not breaches(events, backend, gradients)


@pytest.mark.parametrize("name", OF_OP)
def test_the_reference_runs_no_kernel(name, events):
    with ops.use_backend("reference"):
        outputs_and_gradients(getattr(ops, name), inputs(name))
    assert events
    assert {way for _, way in events} == {"reference"}


def test_parts_are_ops_with_kernels():
    """Each declared part runs on its backend, by kernels of its own or by parts."""
    for op in OPS.values():
        for backend, parts in op.composed.items():
            assert parts
            for part in parts:
                assert backend in OPS[part].backends or backend in OPS[part].composed
