"""encode_topk's screening by a bfloat16 product: nothing is lost to it, whatever the numbers."""

import importlib

import pytest
import torch

from groupcc import ops
from helpers.backends import COMPILED, running
from helpers.encode_cases import case, check, plain, whole_numbers
from helpers.selection_cases import INF, NAN, brute_topk, same


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
