"""Every op computes in the dtype of its arguments, on every implementation, autocast or not; on their device."""

import contextlib

import pytest
import torch

from groupcc import group, ops
from helpers.backends import COMPILED, IMPLEMENTATIONS, running


def inputs(name):
    """Arguments in float32, few enough latents that the decoders' reference is a dense product."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    points, turned = (torch.rand(elements, 4, 2, generator=generator) * 2 + 1 for elements in (3, 8))
    decoded = normal(8, 2), torch.randint(8, (8, 2), generator=generator), normal(8, 3, 5), normal(3, 5)
    posed = normal(5, 2), *(torch.randint(size, (5, 2), generator=generator) for size in (3, 8))
    return {
        "topk": (normal(8, 40), 3),
        "batchtopk": (normal(8, 40), 3),
        "encode_topk": (normal(8, 15), normal(15, 40), normal(40), 3),
        "sparse_decode": decoded,
        "decode_loss": (*decoded, normal(8, 3, 5)),
        "decode_loss_maps": (*decoded, normal(2, 3, 5, 5, 5), points),
        "orbit_gather": (normal(2, 3, 5, 5, 5), points),
        "group_correlate": (normal(5, 8, 6), normal(3, 8, 6), group("D4")),
        "group_correlate_max": (normal(5, 8, 6), normal(3, 8, 6), normal(3), group("D4")),
        "group_decode_loss": (*posed, normal(3, 8, 6), normal(1, 6), normal(5, 8, 6), group("D4")),
        "group_encode_at": (normal(5, 8, 6), normal(3, 8, 6), normal(3), *posed[1:], group("D4")),
        "pose_maxima": (normal(5, 3, 8), torch.eye(8, dtype=torch.bool)[:3], group("D4"), 4),
        "orbit_correlate": (normal(2, 8, 5, 5, 5), turned, normal(3, 8, 5), group("D4")),
        "orbit_encode": (normal(2, 3, 5, 5, 5), points, normal(3, 5, 40), normal(40)),
    }[name]


def outputs_and_gradients(op, args, context):
    leaves = [x.requires_grad_() if torch.is_tensor(x) and x.is_floating_point() else x for x in args]
    with context:
        found = op(*leaves)
    found = found if isinstance(found, tuple) else (found,)
    wanted = [x for x in leaves if torch.is_tensor(x) and x.requires_grad]
    total = sum(x.square().sum() for x in found if x.requires_grad)
    if not torch.is_tensor(total):  # a selection
        return list(found)
    return [*found, *(g for g in torch.autograd.grad(total, wanted, allow_unused=True) if g is not None)]


NAMES = [*ops.registered_ops(), "decode_loss_maps"]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(implementation, name):
    op = getattr(ops, name)
    with running(implementation, name.removesuffix("_maps")) as device:
        args = [x.to(device) if torch.is_tensor(x) else x for x in inputs(name)]
        plain = outputs_and_gradients(op, args, contextlib.nullcontext())
        cast = outputs_and_gradients(op, args, torch.autocast(device, torch.bfloat16))
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
    with running(implementation, name.removesuffix("_maps")):
        plain = outputs_and_gradients(op, inputs(name), contextlib.nullcontext())
        cast = outputs_and_gradients(compiled, inputs(name), torch.autocast("cpu", torch.bfloat16))
    compared = sum(x.requires_grad for x in plain) if implementation == "reference" else len(plain)
    for got, expected in zip(cast[:compared], plain[:compared], strict=True):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_run_on_the_device_of_their_arguments(name, monkeypatch):
    pytest.importorskip("groupcc._C")
    entered = []

    @contextlib.contextmanager
    def device_of(tensor):
        entered.append(tensor.device)
        yield

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    with ops.use_backend("cpp"):
        found = outputs_and_gradients(getattr(ops, name), inputs(name), contextlib.nullcontext())
    assert len(entered) >= 1 + any(x.requires_grad for x in found)  # forward and, where there is one, backward
