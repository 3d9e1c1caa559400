"""orbit_encode on every implementation: against the gather and the product in fp64, gradients, edges."""

import importlib

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from helpers.backends import IMPLEMENTATIONS, running, skip_on_gpu
from helpers.gather_cases import DTYPES, some_points, within_twice


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "orbit_encode") as device:
        yield device


def inputs(device, dtype=torch.float32, *, B=2, S=3, G=3, P=4, D=5, L=6, blocks=None, latent_major=True, seed=0):
    """maps, points, W_enc and b_enc with positive and negative pre-activations."""
    generator = torch.Generator().manual_seed(seed)
    blocks = G if blocks is None else blocks
    maps = torch.randn(B, S, 5, 6, D, generator=generator)
    W_enc = torch.randn(L, blocks, D, generator=generator).permute(1, 2, 0) / max(blocks * D, 1) ** 0.5
    b_enc = torch.randn(L, generator=generator) / 4
    W_enc = W_enc if latent_major else W_enc.contiguous()
    return maps.to(device, dtype), some_points(G, P, 5, 6), W_enc.to(device, dtype), b_enc.to(device, dtype)


def values_and_gradients(maps, points, W_enc, b_enc, interpolation, relu, weight, backend):
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (maps, W_enc, b_enc)]
    with ops.use_backend(backend):
        out = ops.orbit_encode(leaves[0], points, *leaves[1:], interpolation, relu)
    out.backward(weight)
    return [out, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"S": 1, "G": 4, "L": 17, "D": 33},
        {"blocks": 1},
        {"S": 1, "blocks": 1, "P": 1},
        {"B": 1, "S": 1, "G": 1, "P": 1, "D": 1, "L": 1},
        {"B": 3, "D": 37, "L": 40, "latent_major": False},
    ],
    ids=str,
)
def test_values_and_gradients(device, dtype, relu, shape):
    skip_on_gpu(dtype)
    maps, points, W_enc, b_enc = inputs(device, dtype, **shape)
    weight = torch.randn(maps.shape[0] * points.shape[1], W_enc.shape[2]).to(device, dtype)
    wide = [tensor.cpu().double() for tensor in (maps, points, W_enc, b_enc)]
    exact = values_and_gradients(*wide, "bspline", relu, weight.cpu().double(), "reference")
    if relu:  # an activation whose sign is a matter of rounding has no gradient to compare
        sure = (values_and_gradients(*wide, "bspline", False, weight.cpu().double(), "reference")[0]).abs() > 0.02
        weight = weight * sure.to(device)
        exact = values_and_gradients(*wide, "bspline", relu, weight.cpu().double(), "reference")
    got = values_and_gradients(maps, points, W_enc, b_enc, "bspline", relu, weight, ops.current_backend())
    same_dtype = values_and_gradients(maps, points, W_enc, b_enc, "bspline", relu, weight, "reference")
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        assert one.dtype == dtype
        within_twice(one, other, truth.detach())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("S", [1, 7])
def test_many_blocks(device, dtype, S, monkeypatch):
    if ops.current_backend() == "cpp":
        for name, value in {"_IN_CACHE": 3000, "_AT_MOST": 3000, "_ROWS": {True: 9, False: 9}}.items():
            monkeypatch.setattr(importlib.import_module("groupcc.ops.orbit_encode.cpp"), name, value)
    maps, points, W_enc, b_enc = inputs(device, dtype, B=5, S=S, G=7, P=4, D=19, L=21)
    weight = torch.randn(20, 21).to(device, dtype)
    wide = [tensor.cpu().double() for tensor in (maps, points, W_enc, b_enc)]
    exact = values_and_gradients(*wide, "bilinear", False, weight.cpu().double(), "reference")
    got = values_and_gradients(maps, points, W_enc, b_enc, "bilinear", False, weight, ops.current_backend())
    same_dtype = values_and_gradients(maps, points, W_enc, b_enc, "bilinear", False, weight, "reference")
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        within_twice(one, other, truth.detach())


def test_relu_keeps_nan_and_its_gradient_passes_above_0_only(device):
    maps, points, W_enc, b_enc = inputs(device, B=1, S=1, G=1, P=3, D=2, L=4)
    points = torch.tensor([[[1.0, 1.0], [2.0, 1.0], [3.0, 1.0]]], dtype=torch.float64)
    maps[0, 0, 1, 2] = float("nan")
    b_enc.requires_grad_()
    W_enc = torch.zeros_like(W_enc).requires_grad_()
    with torch.no_grad():
        b_enc.copy_(torch.tensor([1.0, 0.0, -1.0, 2.0]))
    out = ops.orbit_encode(maps, points, W_enc, b_enc, "bilinear", True)
    assert out[0].tolist() == out[2].tolist() == [1, 0, 0, 2]
    assert out[1].isnan().all()
    out.backward(torch.ones_like(out))
    assert b_enc.grad.tolist() == [2, 0, 0, 2]


def test_views_need_not_be_contiguous(device):
    maps, points, W_enc, b_enc = inputs(device, B=2, S=3, D=9, L=8)
    expected = ops.orbit_encode(maps, points, W_enc, b_enc)
    channels_first = maps.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    padded = torch.zeros(6, 18, 16, device=device)
    padded[::2, ::2, ::2] = W_enc
    spread = torch.zeros(8, 3, device=device)
    spread[:, 1] = b_enc
    for args in (
        (channels_first, points, W_enc, b_enc),
        (maps, points.transpose(0, 1).contiguous().transpose(0, 1), W_enc, b_enc),
        (maps, points, padded[::2, ::2, ::2], b_enc),
        (maps, points, W_enc.contiguous(), spread[:, 1]),
    ):
        torch.testing.assert_close(ops.orbit_encode(*args), expected)
    leaf = padded.clone().requires_grad_()
    ops.orbit_encode(maps, points, leaf[::2, ::2, ::2], b_enc).sum().backward()
    other = W_enc.clone().requires_grad_()
    ops.orbit_encode(maps, points, other, b_enc).sum().backward()
    torch.testing.assert_close(leaf.grad[::2, ::2, ::2], other.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [{"B": 0}, {"G": 0}, {"P": 0}, {"D": 0}, {"L": 0}], ids=str)
@pytest.mark.parametrize("S", [1, 3])
def test_empty(device, S, shape, dtype):
    maps, points, W_enc, b_enc = inputs(device, dtype, S=S if "G" not in shape else S // 3, **shape)
    leaves = [tensor.requires_grad_() for tensor in (maps, W_enc, b_enc)]
    out = ops.orbit_encode(maps, points, W_enc, b_enc, "bspline", True)
    assert out.shape == (maps.shape[0] * points.shape[1], b_enc.shape[0])
    assert torch.equal(out, b_enc.relu().expand_as(out)) or not {"D", "G"} & set(shape)
    out.sum().backward()
    for leaf in leaves[:2]:
        assert leaf.grad.shape == leaf.shape
        assert not leaf.grad.any()


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("S", [1, 3])
def test_gradcheck(device, S, blocks):
    skip_on_gpu(torch.float64)
    maps, points, W_enc, b_enc = inputs(device, torch.float64, S=S, P=2, D=2, L=3, blocks=blocks)
    leaves = [tensor.requires_grad_() for tensor in (maps, W_enc, b_enc)]
    slow = ops.current_backend() == "triton"  # in its interpreter
    assert torch.autograd.gradcheck(
        lambda m, w, b: ops.orbit_encode(m, points, w, b, "bspline"), leaves, fast_mode=slow
    )


def test_what_needs_no_gradient_gets_none(device):
    maps, points, W_enc, b_enc = inputs(device)
    W_enc.requires_grad_()
    ops.orbit_encode(maps, points, W_enc, b_enc).sum().backward()
    assert W_enc.grad is not None
    assert W_enc.grad.stride() == W_enc.stride()
    assert maps.grad is b_enc.grad is None


def test_points_outside(device, monkeypatch):
    if ops.current_backend() == "cpp":  # in blocks of one element
        monkeypatch.setattr(importlib.import_module("groupcc.ops.orbit_encode.cpp"), "_IN_CACHE", 1)
    maps, points, W_enc, b_enc = inputs(device)
    points[1, 2, 0] = points[2, 0, 0] = 5.5
    with pytest.raises(
        ArgumentError, match=r"points: expected x from 0 to 5 .* got \(5.5, .*\) for element 1, position 2"
    ):
        ops.orbit_encode(maps, points, W_enc, b_enc)


def test_wrong_arguments():
    maps, points, W_enc, b_enc = inputs("cpu")
    with pytest.raises(
        ArgumentError, match=r"W_enc: expected .* \[3 or 1, 5, L\]; got torch.float32 of shape \(2, 5, 6\)"
    ):
        ops.orbit_encode(maps, points, W_enc[:2], b_enc)
    with pytest.raises(ArgumentError, match=r"W_enc: expected torch.float32 .*; got torch.float64"):
        ops.orbit_encode(maps, points, W_enc.double(), b_enc)
    with pytest.raises(ArgumentError, match=r"b_enc: expected .* \[L\] = \[6\]; got .* \(5,\)"):
        ops.orbit_encode(maps, points, W_enc, b_enc[:5])
    with pytest.raises(ArgumentError, match="interpolation"):
        ops.orbit_encode(maps, points, W_enc, b_enc, "nearest")


@pytest.mark.parametrize("implementation", ["cpp", "triton"])
def test_opcheck(implementation):
    with running(implementation, "orbit_encode") as device:
        for S, blocks in ((1, 3), (3, 3), (3, 1)):
            maps, points, W_enc, b_enc = inputs(device, S=S, blocks=blocks)
            args = (maps.requires_grad_(), points, W_enc.requires_grad_(), b_enc.requires_grad_(), "bspline", True)
            torch.library.opcheck(torch.ops.groupcc.orbit_encode.default, (*args, implementation))


def test_torch_compile(device):
    torch._dynamo.reset()
    maps, points, W_enc, b_enc = inputs(device)

    def step(W_enc):
        return ops.orbit_encode(maps, points, W_enc, b_enc, "bspline", True).square().sum(0)

    leaf, compiled = W_enc.clone().requires_grad_(), W_enc.clone().requires_grad_()
    step(leaf).sum().backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).sum().backward()
    torch.testing.assert_close(compiled.grad, leaf.grad)
