"""Every op computes in the dtype of its arguments, on every implementation, autocast or not; on their device."""

import contextlib
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch

from groupcc import ops
from groupcc.ops._declare import Operator
from helpers.backends import COMPILED, IMPLEMENTATIONS, running
from helpers.op_cases import OF_OP, inputs, outputs_and_gradients


def cast_to_bfloat16(op, device):
    """`op` called under autocast; its gradients are asked for outside."""

    def cast(*args):
        with torch.autocast(device, torch.bfloat16):
            return op(*args)

    return cast


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", OF_OP)
def test_autocast_changes_nothing(implementation, name):
    op = getattr(ops, name)
    with running(implementation, OF_OP[name]) as device:
        plain = outputs_and_gradients(op, inputs(name, device))
        cast = outputs_and_gradients(cast_to_bfloat16(op, device), inputs(name, device))
    for got, expected in zip(cast, plain, strict=True):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


@pytest.mark.parametrize("implementation", ["reference", *COMPILED[-1:]])
@pytest.mark.parametrize("name", ["sparse_decode", "decode_loss_maps", "orbit_encode"])
def test_nor_does_it_where_the_op_is_compiled(implementation, name):
    """All but the reference's gradients, which are PyTorch's: traced under autocast, they follow it."""
    torch._dynamo.reset()
    op = getattr(ops, name)
    compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
    with running(implementation, OF_OP[name]):
        plain = outputs_and_gradients(op, inputs(name))
        cast = outputs_and_gradients(cast_to_bfloat16(compiled, "cpu"), inputs(name))
    compared = sum(x.requires_grad for x in plain) if implementation == "reference" else len(plain)
    for got, expected in zip(cast[:compared], plain[:compared], strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)


class Args(NamedTuple):
    x: torch.Tensor


def _like(args: Args) -> torch.Tensor:
    return torch.empty_like(args.x)


def test_kernels_run_on_the_device_of_their_arguments(monkeypatch):
    """Where that is a GPU; here a tensor pretends that it is on one."""
    entered, on = [], []

    @contextlib.contextmanager
    def device_of(tensor):
        entered.append(tensor)
        on.append(True)
        yield
        on.clear()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    kernels = SimpleNamespace(forward=lambda args: 2 * args.x if on else None)
    doubled = Operator("doubled_by_a_test", _like, lambda backend: kernels, "forward")
    monkeypatch.setattr(torch.Tensor, "is_cpu", False)
    assert doubled(Args(torch.ones(2)), "cpp").tolist() == [2, 2]
    assert len(entered) == 1
