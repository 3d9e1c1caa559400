"""encode_topk on every implementation: against fp64 products, and to the bit where products are exact."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from helpers.backends import COMPILED, IMPLEMENTATIONS, no_float64, running, skip_on_gpu
from helpers.encode_cases import case, check, plain, whole_numbers
from helpers.selection_cases import DTYPES, INF, NAN, brute_topk, same

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 7), (6, 33, 50, 4), (70, 130, 64, 3), (65, 129, 300, 5)]


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "encode_topk") as device:
        yield device


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("N", "M", "L", "k"), SHAPES)
def test_values(device, dtype, N, M, L, k):
    skip_on_gpu(dtype)
    x, W, b = case(N, M, L, dtype=dtype)
    acts, _ = check(x, W, b, k, device)
    expected, _ = plain(x.double(), W.double(), b.double(), k)
    torch_error = (plain(x, W, b, k)[0].double() - expected).abs().max()
    assert (acts.double() - expected).abs().max() <= 2 * torch_error + 4 * torch.finfo(dtype).eps


def test_ties_and_order_to_the_bit(device):
    for (N, M, L, k), dtype in zip(SHAPES, [torch.float32, torch.float64, *DTYPES[:2], torch.float32], strict=True):
        if dtype == torch.float64 and no_float64():
            continue
        x, W, b = (t.to(dtype) for t in whole_numbers(N, M, L))
        acts, indices = (t.cpu() for t in ops.encode_topk(x.to(device), W.to(device), b.to(device), k))
        expected_acts, expected_indices = brute_topk(torch.addmm(b, x, W), k)
        same(acts, expected_acts)
        same(indices, expected_indices)


def test_nan_and_infinity(device):
    x, W, b = whole_numbers(6, 4, 20)
    x[0, 1], x[1, 2], x[2, 0] = NAN, INF, -INF
    b[3], b[5], W[2, 7] = INF, -INF, NAN
    acts, indices = (t.cpu() for t in ops.encode_topk(x.to(device), W.to(device), b.to(device), 6))
    expected_acts, expected_indices = brute_topk(torch.addmm(b, x, W), 6)
    same(acts, expected_acts)
    same(indices, expected_indices)


def test_views(device):
    big = torch.randn(40, 90)
    W = torch.randn(60, 50)
    for x in (big[:, 3:23], big[::2, ::4][:, :20], big.t()[:, :20], big[:1, :20].expand(9, 20)):
        for weights in (W[:20], W[20:40].clone(), W.t()[:20], W[::3, ::2][:20]):
            check(x, weights, torch.randn(2 * weights.shape[1])[::2], 3, device)


def test_no_rows(device):
    x, W, b = (t.to(device).requires_grad_() for t in case(0, 5, 9))
    acts, indices = ops.encode_topk(x, W, b, 2)
    assert acts.shape == indices.shape == (0, 2)
    acts.sum().backward()
    assert x.grad.shape == (0, 5)
    assert W.grad.abs().max() == b.grad.abs().max() == 0


def test_gradcheck(device):
    skip_on_gpu(torch.float64)
    x, W, b = (t.to(device).requires_grad_() for t in case(5, 7, 11, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *a: ops.encode_topk(*a, 4)[0], (x, W, b))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("N", "M", "L", "k"), SHAPES)
def test_gradients(device, dtype, N, M, L, k):
    """Against fp64, at most twice as far off as the reference's, from the same choice; the ReLU's mask included."""
    skip_on_gpu(dtype)
    weight = torch.randn(N, k, generator=torch.Generator().manual_seed(1)).to(dtype)
    x, W, b = (t.to(device).requires_grad_() for t in case(N, M, L, dtype=dtype))
    acts, indices = ops.encode_topk(x, W, b - 2, k)
    acts.backward(weight.to(device))
    masked = (weight * (acts.detach().cpu() > 0)).double()
    assert N < 6 or (masked == 0).any()
    dense = torch.zeros(N, L, dtype=torch.float64).scatter_add(1, indices.cpu(), masked)
    inputs = x.detach().cpu(), W.detach().cpu()
    exact = dense @ inputs[1].double().t(), inputs[0].double().t() @ dense, dense.sum(0)
    plain = dense.to(dtype) @ inputs[1].t(), inputs[0].t() @ dense.to(dtype), dense.to(dtype).sum(0)
    for gradient, right, torchs in zip((x.grad, W.grad, b.grad), exact, plain, strict=True):
        error = (gradient.cpu().double() - right).abs().max()
        floor = 2 * torch.finfo(dtype).eps * right.abs().max()
        assert error <= 2 * (torchs.double() - right).abs().max() + floor


def test_only_what_is_needed():
    x, W, b = case(6, 5, 9)
    acts, _ = ops.encode_topk(x, W.requires_grad_(), b, 2)
    acts.sum().backward()
    assert W.grad is not None
    assert x.grad is None
    assert b.grad is None


@pytest.mark.parametrize("implementation", COMPILED)
def test_the_gradient_of_W_is_latent_major(implementation):
    with running(implementation, "encode_topk"):
        x, W, b = case(6, 5, 9)
        ops.encode_topk(x, W.requires_grad_(), b, 2)[0].sum().backward()
        assert W.grad.t().is_contiguous()


@pytest.mark.parametrize("backend", ["cpp", "triton"])
def test_as_a_library_op(backend):
    with running(backend, "encode_topk") as device:
        x, W, b = (t.to(device).requires_grad_() for t in case(5, 7, 11))
        torch.library.opcheck(torch.ops.groupcc.encode_topk.default, (x, W, b, 4, backend))
        compiled = torch.compile(lambda *a: ops.encode_topk(*a, 4), fullgraph=True, backend="aot_eager")
        acts, indices = compiled(x, W, b)
        expected = ops.encode_topk(x, W, b, 4)
        assert torch.equal(indices, expected[1])
        gradients = torch.autograd.grad(acts.square().sum(), (x, W, b))
        for got, right in zip(gradients, torch.autograd.grad(expected[0].square().sum(), (x, W, b)), strict=True):
            torch.testing.assert_close(got, right)


def test_bad_arguments():
    x, W, b = case(6, 5, 9)
    for args, message in [
        ((x[0], W, b, 2), r"x: expected a floating-point tensor \[N, M\]"),
        ((x, W.t(), b, 2), r"W_enc: expected torch.float32 of shape \[M, L\] = \[5, L\]; got .*\(9, 5\)"),
        ((x, W.double(), b, 2), "W_enc: expected torch.float32"),
        ((x, W, b[1:], 2), r"b_enc: expected .* \[9\]; got .*\(8,\)"),
        ((x, W, b, 10), "k: expected a whole number from 1 to L = 9; got 10"),
        ((x, W, b, 0), "k: expected"),
        ((x, W, b, True), "k: expected a whole number from 1 to L = 9; got True"),
        ((x, W, b, 3.0), "k: expected a whole number from 1 to L = 9; got 3.0"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            ops.encode_topk(*args)


# Screening by a bfloat16 product.
