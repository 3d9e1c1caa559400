"""What only the Triton kernels of the selections have: several blocks a row, exact paths, both sorts, screening."""

import pytest
import torch

from helpers.selection_cases import DTYPES, NAN, brute_batchtopk, brute_topk, same

triton_topk = pytest.importorskip("groupcc.ops.topk.triton")
triton_encode = pytest.importorskip("groupcc.ops.encode_topk.triton")
triton_batchtopk = pytest.importorskip("groupcc.ops.batchtopk.triton")

from helpers import interpreter  # noqa: E402, F401  (rounds to bfloat16 as GPUs do)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def check_topk(pre, k):
    for got, expected in zip(triton_topk.forward(pre.to(DEVICE), k), brute_topk(pre, k), strict=True):
        same(got, expected)


def check_batchtopk(pre, k):
    for got, expected in zip(triton_batchtopk.forward(pre.to(DEVICE), k), brute_batchtopk(pre, k), strict=True):
        same(got, expected)


def long_rows(L, dtype):
    """Random, rising, falling, tied across blocks, mostly zero, and one group of columns that has all the largest."""
    i = torch.arange(L)
    rows = [torch.randn(L), i / L, -i / L, (i % 7).float(), torch.relu(torch.randn(L) - 2.5), torch.randn(L)]
    rows[-1][5::4096] += 100
    rows[0][L - 1] = NAN
    return torch.stack(rows).to(dtype)


@pytest.mark.parametrize("dtype", [d for d in DTYPES if d != torch.float64], ids=str)
def test_rows_of_several_blocks(dtype):
    torch.manual_seed(0)
    check_topk(long_rows(9001, dtype), 5)


def test_bitonic_sort_of_many():
    torch.manual_seed(1)
    check_topk(long_rows(5000, torch.float32)[[0, 3]], 140)


def test_rows_that_are_not_contiguous_and_columns_that_are():
    pre = torch.randn(7, 50, generator=torch.Generator().manual_seed(2))
    check_topk(pre[::3, 5:45], 4)


@pytest.mark.parametrize("tied", [False, True])
def test_a_batch_that_overflows_its_list(tied):
    """Every entry of the first row reaches the bound: all groups of the others have one that is as large."""
    torch.manual_seed(3)
    pre = torch.rand(3, 9001)
    if tied:
        pre = torch.full_like(pre, 2.0)
    pre[1:] = 0.5
    pre[1:, ::64] = 0.75
    pre[0] += 0.75
    check_batchtopk(pre, 100 if tied else 130)


def test_a_batch_with_rows_of_several_blocks_and_few_positive():
    torch.manual_seed(4)
    check_batchtopk(torch.randn(2, 5000) - 2.5, 300)


def test_a_batchs_rows_are_written_within_their_bounds():
    """The second row has more on the list than it gets, and nothing may be written behind it."""
    pre = torch.tensor([[5.0, 1, 7], [4, 9, 8]], device=DEVICE)
    keys = pre.view(torch.int32).long()
    entries = (keys << 32 | (0x7FFFFFFF - torch.arange(3, device=DEVICE))).flatten()
    starts, counts, chosen = torch.tensor([[0, 3], [3, 3], [1, 2]], device=DEVICE)
    acts, indices = torch.full((6,), -1.0, device=DEVICE), torch.full((6,), -1, device=DEVICE)
    triton_batchtopk.rows_kernel[(2,)](entries, starts, counts, chosen, acts, indices, 2, BLOCK=128)
    assert acts.tolist() == [7, 0, 9, 8, -1, -1]
    assert indices.tolist() == [2, 0, 1, 2, -1, -1]


def test_unsupported():
    assert "float64" in triton_topk.unsupported(torch.zeros(2, 3, dtype=torch.float64), 1)
    assert "k up to" in triton_topk.unsupported(torch.zeros(2, 3000, device=DEVICE), 1000)
    assert triton_topk.unsupported(torch.zeros(2, 3, device=DEVICE), 1) is None
    assert "float64" in triton_batchtopk.unsupported(torch.zeros(2, 3, dtype=torch.float64), 1)
    W = torch.zeros(1, device=DEVICE).expand(1 << 23, 2)
    assert "rows of 8388608 elements" in triton_encode.unsupported(W[:, 0].expand(1, -1), W, W[0], 1)
    assert triton_encode.unsupported(W[:5, 0].expand(1, -1), W[:5], W[0], 1) is None
    for module in (triton_topk, triton_batchtopk):
        assert "latents" in module.unsupported(torch.zeros(1, device=DEVICE).expand(1, 1 << 31), 1)


def screened(x, W, b, k):
    """encode_topk by lists of what exceeds a threshold, and which rows it gives up."""
    redone = []

    def noted(*args):
        out = screen(*args)
        redone.append(out[2].nonzero().flatten().tolist())
        return out

    screen = triton_encode._screened
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_encode, "pays", lambda *_: True)
        patch.setattr(triton_encode, "_screened", noted)
        acts, indices = triton_encode.forward(*(t.to(DEVICE) for t in (x, W, b)), k)
    return acts, indices, redone[0]


def whole_numbers(N, M, L, dtype, seed):
    """Exact in every product and sum, with ties."""
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(-2, 3, shape, generator=g).to(dtype) for shape in ((N, M), (M, L), (L,))]


def check_screened(x, W, b, k):
    acts, indices, redone = screened(x, W, b, k)
    expected = brute_topk(torch.addmm(b.float(), x.float(), W.float()).to(x.dtype), k)
    same(acts, expected[0])
    same(indices, expected[1])
    return redone


@pytest.mark.parametrize(("dtype", "N", "M", "L", "k"), [(torch.bfloat16, 9, 70, 400, 6), (torch.float16, 3, 5, 97, 2)])
def test_screened_to_the_bit(dtype, N, M, L, k):
    x, W, b = whole_numbers(N, M, L, dtype, seed=5)
    W[:, ::3] *= torch.linspace(0.5, 4, len(W[0, ::3])).round().to(dtype)  # so that few rows are tied at the threshold
    assert len(check_screened(x, W, b, k)) < N


def test_rows_that_screening_gives_up():
    """Too few above the threshold, too many, NaN; next to rows that it does."""
    x, W, b = whole_numbers(6, 8, 400, torch.bfloat16, seed=6)
    W *= torch.linspace(1, 9, 400).round()[torch.randperm(400, generator=torch.Generator().manual_seed(6))].bfloat16()
    x[:2], x[:, :2], W[:2] = 0, 0, 0
    x[0, 0], x[1, 1] = 1, -1
    W[:2, ::16] = 64  # the latents of the sample alone stand out in row 0, alone fall behind in row 1
    x[2, 3], x[3, 4] = NAN, 2.0**60
    redone = check_screened(x, W, b, 6)
    assert {0, 1, 2} <= set(redone)
    assert len(redone) < 6


def test_what_pays_to_screen():
    x, W = torch.zeros(64, 8, dtype=torch.bfloat16), torch.zeros(8, 4096, dtype=torch.bfloat16)
    assert triton_encode.pays(x, W, 64)
    assert not triton_encode.pays(x[1:], W, 64)
    assert not triton_encode.pays(x, W[:, 1:], 64)
    assert not triton_encode.pays(x.float(), W.float(), 64)
