"""encode_topk on every implementation: against fp64 products, and to the bit where products are exact."""

import importlib

import pytest
import torch
from backends import COMPILED, IMPLEMENTATIONS, no_float64, running, skip_on_gpu
from selection_cases import DTYPES, INF, NAN, brute_topk, same

from groupcc import ops
from groupcc.errors import ArgumentError
from groupcc.ops.topk.reference import topk_reference

SHAPES = [(1, 1, 1, 1), (3, 5, 7, 7), (6, 33, 50, 4), (70, 130, 64, 3), (65, 129, 300, 5)]


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "encode_topk") as device:
        yield device


@pytest.fixture(params=COMPILED or [pytest.param("", marks=pytest.mark.skip("no extension"))])
def screening(request, monkeypatch):
    """Screening at any size, and the numbers of rows that it leaves to the full product."""
    with running(request.param, "encode_topk"):
        from groupcc.ops.encode_topk import cpp, screening

        left = []

        def counted(*args):
            out = screened(*args)
            left.append(len(out[2]))
            return out

        screened = screening.screened
        monkeypatch.setattr(cpp, "screened", counted)
        monkeypatch.setattr(screening, "fast_bfloat16", lambda: True)
        monkeypatch.setattr(screening, "LEAST_ROWS", 1)
        monkeypatch.setattr(screening, "LEAST_WIDTH", 1)
        monkeypatch.setattr(screening, "PROBE", 7)
        monkeypatch.setattr(screening, "BLOCK_BYTES", 1 << 14)
        yield left


def case(N, M, L, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x, W, b = (torch.randn(*shape, generator=g) for shape in ((N, M), (L, M), (L,)))
    return x.to(dtype), W.div(M**0.5).to(dtype).t(), b.mul(0.3).to(dtype)


def plain(x, W, b, k):
    return topk_reference(torch.addmm(b, x, W), k)


def check(x, W, b, k, device="cpu"):
    """The chosen are the k largest up to rounding, and as accurate as PyTorch's in the same dtype."""
    acts, indices = (t.cpu() for t in ops.encode_topk(x.to(device), W.to(device), b.to(device), k))
    exact = torch.addmm(b.double(), x.double(), W.double())
    rounding = 2 * (torch.addmm(b, x, W).double() - exact).abs().amax(1, keepdim=True)
    # What the sum of a product's terms can be off by at best: a tie of exact sums is not one of rounded ones.
    size = b.double().abs() + x.double().abs() @ W.double().abs()
    rounding = rounding.maximum(2 * torch.finfo(x.dtype).eps * size.amax(1, keepdim=True)) + 1e-300
    assert acts.dtype == x.dtype
    assert acts.shape == indices.shape == (len(x), k)
    assert indices.dtype == torch.int64
    assert all(len(set(row)) == k for row in indices.tolist())
    assert (acts[:, 1:] <= acts[:, :-1]).all()
    chosen = exact.gather(1, indices)
    assert ((acts.double() - chosen.relu()).abs() <= rounding).all()
    others = exact.scatter(1, indices, -INF)
    assert (chosen.amin(1) >= others.amax(1) - 2 * rounding[:, 0]).all()
    return acts, indices


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("N", "M", "L", "k"), SHAPES)
def test_values(device, dtype, N, M, L, k):
    skip_on_gpu(dtype)
    x, W, b = case(N, M, L, dtype=dtype)
    acts, _ = check(x, W, b, k, device)
    expected, _ = plain(x.double(), W.double(), b.double(), k)
    torch_error = (plain(x, W, b, k)[0].double() - expected).abs().max()
    assert (acts.double() - expected).abs().max() <= 2 * torch_error + 4 * torch.finfo(dtype).eps


def whole_numbers(N, M, L, largest=4, seed=0):
    """Exact in every product and sum, and full of ties."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(-largest, largest + 1, s, generator=g).float() for s in ((N, M), (M, L), (L,))]


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


@pytest.mark.parametrize(("N", "M", "L", "k"), [(1, 1, 16, 1), (9, 33, 64, 4), (40, 130, 500, 5), (30, 700, 1031, 32)])
def test_screened_values(screening, N, M, L, k):
    check(*case(N, M, L), k)
    assert screening
    if M * k > 100:
        assert screening[0] == 0


@pytest.mark.parametrize("largest", [1, 4, 100])
def test_screened_ties_to_the_bit(screening, largest):
    for seed in range(5):
        x, W, b = whole_numbers(40, 60, 300, largest, seed)
        W = W.t().contiguous().t()
        acts, indices = ops.encode_topk(x, W, b, 6)
        expected_acts, expected_indices = brute_topk(torch.addmm(b, x, W), 6)
        same(acts, expected_acts)
        same(indices, expected_indices)
    assert len(screening) == 5


def test_screening_survives_the_largest_errors_that_rounding_can_make(screening):
    """Latents alike in bfloat16 whose rounding errors all line up with x: the bound is nearly attained."""
    M, L, k = 512, 640, 8
    for seed in range(4):
        g = torch.Generator().manual_seed(seed)
        sign = torch.randint(0, 2, (M,), generator=g).float() * 2 - 1
        x = sign * torch.ones(30, 1)
        x[1::2] *= -1  # so that the mean, which screening takes away, is none
        lost = 2.0**-9 * torch.linspace(-0.999, 0.999, L)[torch.randperm(L, generator=g)]
        W = torch.ones(L, M) + lost[:, None] * sign
        assert (W.bfloat16() == 1).all()
        check(x, W.t(), torch.zeros(L), k)
        # A few that stand out, by less than what the others may hide.
        W[:20] *= 1 + 2.0**-8
        check(x, W.t(), torch.zeros(L), k)
    assert len(screening) == 8


def test_screening_allows_for_the_rounding_of_x(screening):
    """One latent is largest only by what rounding takes from x, which it adds to four others."""
    M, L = 512, 640
    g = torch.Generator().manual_seed(0)
    W = torch.ones(L, M)
    for row in W:
        row[torch.randperm(M, generator=g)[: M // 2]] = -1  # orthogonal to x as rounded
    lost = 0.999 * 2.0**-9
    x = torch.tensor([1.0, -1.0]).repeat(10)[:, None] * (1 + lost * W[0])
    assert (x.bfloat16().abs() == 1).all()
    W[1:5] = -W[0]
    b = torch.full((L,), -float(M))
    b[:5] = lost * M * torch.tensor([0, 1.8, 1.8, 1.8, 1.8])
    _, indices = check(x, W.t(), b, 2)
    assert indices[::2].tolist() == [[0, 1]] * 10
    assert screening == [0]


def test_screening_allows_for_the_rounding_of_its_product(screening):
    """Exact in bfloat16 but for the product itself, which the bias all but takes away again."""
    g = torch.Generator().manual_seed(0)
    x0, W = (torch.randint(-40, 41, shape, generator=g).float() for shape in ((64,), (640, 64)))
    x = torch.tensor([1.0, -1.0]).repeat(10)[:, None] * x0
    b = torch.randint(0, 2048, (640,), generator=g) / 512 - W @ x0
    b[40:] -= 1000
    check(x, W.t(), b, 5)
    same(ops.encode_topk(x, W.t(), b, 5)[1], brute_topk(torch.addmm(b, x, W.t()), 5)[1])
    assert screening == [0, 0]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "change",
    [
        "far mean",
        "mixed rows",
        "mixed latents",
        "outlier column",
        "bias",
        "duplicates",
        "all equal",
        "tiny",
        "denormal",
    ],
)
def test_screened_adversaries(screening, change, seed):
    x, W, b = case(40, 200, 600, seed)
    W = W.t().clone()
    g = torch.Generator().manual_seed(seed)
    if change == "far mean":
        x += 100 * torch.randn(200, generator=g)
    elif change == "mixed rows":
        x *= torch.logspace(-12, 12, 40)[:, None]
    elif change == "mixed latents":
        W *= torch.logspace(-12, 12, 600)[torch.randperm(600, generator=g), None]
    elif change == "outlier column":
        x[:, 17] *= 1e5
        W[:, 40] *= 1e4
    elif change == "bias":
        b *= 1e6
    elif change == "duplicates":
        W[300:] = W[:300]
        b[300:] = b[:300]
    elif change == "all equal":
        W[:] = W[0]
        b[:] = 0
    else:
        x *= {"tiny": 1e-25, "denormal": 1e-38}[change]
        W *= {"tiny": 1e-13, "denormal": 1e-3}[change]
        b *= 0
    _, indices = check(x, W.t(), b, 6)
    if change in ("duplicates", "all equal"):
        expected = plain(x, W.t(), b, 6)[1]
        lower = indices % 300 if change == "duplicates" else indices
        assert torch.equal(
            lower.sort(1).values, (expected % 300 if change == "duplicates" else expected).sort(1).values
        )
    if change in ("far mean", "duplicates", "bias"):
        assert screening == [0]
    if change in ("mixed rows", "outlier column", "all equal", "denormal"):
        assert screening == [40]


def test_screened_nan_infinity_and_overflow(screening):
    x, W, b = whole_numbers(40, 40, 400)
    W = W.t().contiguous()
    x[0, 1], x[1, 2], x[2, 0], x[30, 0] = NAN, INF, -INF, 3e38
    b[3], b[5], W[9, 2], W[11, 3], W[12] = INF, -INF, NAN, 3e38, -INF
    pre = torch.addmm(b, x, W.t())
    acts, indices = ops.encode_topk(x, W.t(), b, 12)
    expected_acts, expected_indices = brute_topk(pre, 12)
    same(acts, expected_acts)
    same(indices, expected_indices)
    assert 0 < screening[0] < 40


def test_screening_is_the_same_on_any_number_of_threads(screening, monkeypatch):
    """Rows of few candidates and of many: some that lie together find room for all of theirs, some do not."""
    module = importlib.import_module("groupcc.ops.encode_topk.screening")
    monkeypatch.setattr(module, "BLOCK_BYTES", 1 << 20)
    x, W, b = case(160, 40, 1000)
    W = W.t().clone()
    W[:, 0] = 1  # so that x[:, 0] tells no latent from another, and its rounding hides what does
    x[:, 0] = torch.linspace(1, 120, 160)
    x[::2, 0] *= -1
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            acts, indices, left = module.screened(x, W.t(), b, 3)
            found.append((left, acts.index_fill(0, left, 0), indices.index_fill(0, left, 0)))
    finally:
        torch.set_num_threads(before)
    assert 0 < len(found[0][0]) < 160
    for others in found[1:]:
        for got, expected in zip(others, found[0], strict=True):
            same(got, expected)


def test_screening_whatever_the_default_dtype(screening):
    x, W, b = case(40, 200, 600)
    expected = ops.encode_topk(x, W, b, 6)
    before = torch.get_default_dtype()
    try:
        for dtype in (torch.bfloat16, torch.float64):
            torch.set_default_dtype(dtype)
            for got, right in zip(ops.encode_topk(x, W, b, 6), expected, strict=True):
                same(got, right)
    finally:
        torch.set_default_dtype(before)
    assert screening == [0] * 3


def test_rows_that_overflow_only_in_float32(screening):
    """x·w overflows on the way while the screening product, of small numbers, does not."""
    x, W, b = case(20, 64, 400)
    x, W = 1e-3 * x, W.t().contiguous()
    W[7] = 0
    W[7, :2] = 3e38
    x[:, 0], x[:, 1] = 100, -100
    check_nan = torch.addmm(b, x, W.t())
    acts, indices = ops.encode_topk(x, W.t(), b, 5)
    same(indices, brute_topk(check_nan, 5)[1])
    assert not torch.equal(acts, acts.nan_to_num())


def test_where_screening_runs(monkeypatch):
    screening = pytest.importorskip("groupcc.ops.encode_topk.screening")
    monkeypatch.setattr(screening, "fast_bfloat16", lambda: True)
    x, W, _ = case(64, 128, 640)
    assert screening.pays(x, W, 40)
    assert not screening.pays(x, W, 41)
    assert not screening.pays(x[1:], W, 2)
    assert not screening.pays(x, W.contiguous(), 2)
    assert not screening.pays(x.double(), W.double(), 2)
    assert not screening.pays(x[:, 1:], W[1:].t().contiguous().t(), 2)
    monkeypatch.setattr(screening, "fast_bfloat16", lambda: False)
    assert not screening.pays(x, W, 2)
