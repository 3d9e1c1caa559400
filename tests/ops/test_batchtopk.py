"""batchtopk on every implementation against a brute-force sort."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from helpers.backends import COMPILED, IMPLEMENTATIONS, interpreted, running, skip_without
from helpers.selection_cases import DTYPES, brute_batchtopk, same, sorted_batchtopk, tables


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "batchtopk") as device:
        yield device


@pytest.fixture(params=COMPILED)
def compiled(request):
    with running(request.param, "batchtopk"):
        yield


def check(pre, k, device):
    for got, expected in zip(ops.batchtopk(pre.to(device), k), brute_batchtopk(pre, k), strict=True):
        same(got, expected)


def test_by_hand(device):
    pre = torch.tensor([[4.0, 3, 2], [1, -5, 2], [-1, -2, -3]], device=device)
    acts, indices, threshold = ops.batchtopk(pre, 1)
    assert acts.tolist() == [[4, 3, 2], [0, 0, 0], [0, 0, 0]]  # of the two equal 2s the lower flat index
    assert indices.tolist() == [[0, 1, 2], [0, 0, 0], [0, 0, 0]]
    assert threshold.item() == 2
    acts, indices, threshold = ops.batchtopk(pre, 2)
    assert acts.tolist() == [[4, 3, 2], [2, 1, 0], [0, 0, 0]]  # the sixth is negative: chosen, then 0
    assert indices.tolist() == [[0, 1, 2], [2, 0, 0], [0, 0, 0]]
    assert threshold.item() == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("L", "k"), [(1, 1), (9, 1), (9, 4), (9, 9), (60, 7)])
def test_every_kind_of_batch(device, dtype, L, k):
    skip_without(dtype)
    if interpreted() and (L != 60 or dtype == torch.float16):
        pytest.skip("slow in the interpreter")
    for pre in tables(L, dtype, N=2 if interpreted() else 6).values():
        check(pre, k, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", tables(64))
def test_large_batches(compiled, dtype, kind):
    """Large enough to be sampled; the sample misleads, or elements tie, in several."""
    pre = tables(1033, dtype, N=300)[kind]
    for got, expected in zip(ops.batchtopk(pre, 11), sorted_batchtopk(pre, 11), strict=True):
        same(got, expected)


@pytest.mark.parametrize("k", [1, 20, 700])
def test_a_few_rows_have_it_all(compiled, k):
    pre = torch.randn(400, 800)
    pre[7:9] += 50
    pre[300, 5:9] = float("nan")
    pre[:, 100:140] = 1.25
    for got, expected in zip(ops.batchtopk(pre, k), sorted_batchtopk(pre, k), strict=True):
        same(got, expected)


def test_threads_do_not_matter(compiled):
    pre = torch.randn(301, 1000)
    before = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2, 7):
            torch.set_num_threads(n)
            results.append(ops.batchtopk(pre, 9))
    finally:
        torch.set_num_threads(before)
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            same(got, expected)


def test_library(compiled):
    pre = torch.randn(4, 9, requires_grad=True)
    torch.library.opcheck(torch.ops.groupcc.batchtopk.default, (pre, 3, "cpp"))
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        compiled_op = torch.compile(lambda x: ops.batchtopk(2 * x, 3)[0].sum(), fullgraph=True, backend="aot_eager")
        compiled_op(pre).backward()
    expected = torch.autograd.grad(ops.batchtopk(2 * pre, 3)[0].sum(), pre)[0]
    assert torch.equal(pre.grad, expected)


def test_views(device):
    pre = torch.randn(12, 40)
    for view in (pre[:, 3:30], pre[::2], pre.t(), pre[:, ::3], pre[:1].expand(5, 40), pre.t()[5:30, 1:7]):
        check(view[:3] if interpreted() else view, 3, device)


def test_no_rows(device):
    pre = torch.zeros(0, 7, device=device, requires_grad=True)
    acts, indices, threshold = ops.batchtopk(pre, 3)
    assert acts.shape == indices.shape == (0, 1)
    assert threshold.item() == 0
    acts.sum().backward()
    assert pre.grad.shape == (0, 7)


def test_all_in_one_row(device):
    pre = torch.rand(8, 30) - 2
    pre[5] += 10
    check(pre, 3, device)
    assert ops.batchtopk(pre.to(device), 3)[0].shape == (8, 24)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_flows_through_the_positive_entries(device, dtype):
    skip_without(dtype)
    pre = torch.tensor([[2.0, -1, 4, 1], [-2, -3, 1, -4]], dtype=dtype).to(device).requires_grad_()
    acts, indices, threshold = ops.batchtopk(pre, 3)
    assert not threshold.requires_grad
    assert indices.tolist() == [[2, 0, 3], [2, 0, 0]]
    (acts * torch.tensor([[3.0, 5, 7], [9, 11, 13]], dtype=dtype, device=device)).sum().backward()
    assert pre.grad.tolist() == [[5, 0, 3, 7], [0, 0, 9, 0]]


def test_gradcheck(device):
    skip_without(torch.float64)
    torch.manual_seed(1)
    pre = torch.randn(4, 6, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.batchtopk(x, 2)[0], (pre,))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="pre_acts"):
        ops.batchtopk(torch.zeros(4), 1)
