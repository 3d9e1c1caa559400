"""topk on every implementation against a brute-force sort."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from helpers.backends import COMPILED, IMPLEMENTATIONS, interpreted, running, skip_without
from helpers.selection_cases import DTYPES, brute_topk, relu, same, tables


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "topk") as device:
        yield device


@pytest.fixture(params=COMPILED)
def compiled(request):
    with running(request.param, "topk"):
        yield


def check(pre, k, device):
    acts, indices = ops.topk(pre.to(device), k)
    expected_acts, expected_indices = brute_topk(pre, k)
    same(indices, expected_indices)
    same(acts, expected_acts)


def test_by_hand(device):
    pre = torch.tensor([[1.0, 5, 3, 5, -1], [0, 0, 0, 0, 0], [-3, -1, -2, -1, 2]])
    acts, indices = ops.topk(pre.to(device), 3)
    assert indices.tolist() == [[1, 3, 2], [0, 1, 2], [4, 1, 3]]
    assert acts.tolist() == [[5, 5, 3], [0, 0, 0], [2, 0, 0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("L", "k"), [(1, 1), (9, 1), (9, 4), (9, 9), (100, 17)])
def test_every_kind_of_row(device, dtype, L, k):
    skip_without(dtype)
    if interpreted() and (L, k) not in ([(9, 4), (100, 17)] if dtype == torch.float32 else [(9, 4)]):
        pytest.skip("slow in the interpreter")
    for pre in tables(L, dtype, N=2 if interpreted() else 6).values():
        check(pre, k, device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("L", "k"), [(300, 5), (1100, 32), (4133, 64), (4133, 200), (4133, 1500)])
def test_long_rows(compiled, dtype, L, k):
    for pre in tables(L, dtype).values():
        acts, indices = ops.topk(pre, k)
        values, expected = pre.sort(dim=1, descending=True, stable=True)
        same(indices, expected[:, :k])
        same(acts, relu(values[:, :k]))


def test_the_largest_in_few_groups(compiled):
    pre = torch.randn(7, 8192)
    pre[:, ::64] += 9  # every 64th
    pre[1, 5000:5400] += 20  # neighbours
    pre[2, ::16] = 30  # equals
    expected = pre.argsort(dim=1, descending=True, stable=True)
    for k in (64, 128, 180):
        same(ops.topk(pre, k)[1], expected[:, :k])


def test_denormals_count_where_pytorch_flushes_them(compiled):
    assert torch.set_flush_denormal(True)
    try:
        acts, indices = ops.topk(torch.tensor([0, 1 << 20, 1 << 21, 1], dtype=torch.int32).view(torch.float32)[None], 3)
    finally:
        torch.set_flush_denormal(False)
    assert indices.tolist() == [[2, 1, 3]]
    assert acts.view(torch.int32).tolist() == [[1 << 21, 1 << 20, 1]]


def test_many_threads_and_rows_far_apart(compiled):
    pre = torch.randn(70, 3000)
    expected = ops.topk(pre, 20)
    for view in (torch.randn(70, 9000), torch.randn(140, 3000)[::2]):
        view[:, :3000] = pre
        before = torch.get_num_threads()
        torch.set_num_threads(5)
        try:
            for got, want in zip(ops.topk(view[:, :3000], 20), expected, strict=True):
                same(got, want)
        finally:
            torch.set_num_threads(before)


def test_views(device):
    pre = torch.randn(12, 40)
    for view in (pre[:, 3:30], pre[::2], pre.t(), pre[:, ::3], pre[:1].expand(5, 40), pre.t()[5:30, 1:7]):
        check(view[:3] if interpreted() else view, 3, device)


def test_no_rows(device):
    pre = torch.zeros(0, 7, device=device, requires_grad=True)
    acts, indices = ops.topk(pre, 3)
    assert acts.shape == indices.shape == (0, 3)
    acts.sum().backward()
    assert pre.grad.shape == (0, 7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_respects_the_relu_mask(device, dtype):
    skip_without(dtype)
    pre = torch.tensor([[2.0, -1, -3, 1, float("nan")]], dtype=dtype).to(device).requires_grad_()
    acts, _ = ops.topk(pre, 4)
    (acts * torch.tensor([[7.0, 3, 5, 9]], dtype=dtype, device=device)).nan_to_num().sum().backward()
    assert pre.grad.tolist() == [[3, 0, 0, 5, 0]]


def test_gradient_of_large_rows_is_the_scatter(device):
    pre = torch.randn(9, 130, device=device, requires_grad=True)
    acts, indices = ops.topk(pre, 70)
    weight = torch.randn(70, 9, device=device).t()  # not contiguous
    (acts * weight).sum().backward()
    assert torch.equal(pre.grad, torch.zeros_like(pre).scatter(1, indices, weight * (acts > 0)))


def test_gradcheck(device):
    skip_without(torch.float64)
    torch.manual_seed(0)
    pre = torch.randn(5, 9, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.topk(x, 3)[0], (pre,))


def test_library(compiled):
    with ops.use_backend("cpp"):
        pre = torch.randn(4, 9, requires_grad=True)
        torch.library.opcheck(torch.ops.groupcc.topk.default, (pre, 3, "cpp"))
        compiled_op = torch.compile(lambda x: ops.topk(2 * x, 3)[0].sum(), fullgraph=True, backend="aot_eager")
        compiled_op(pre).backward()
        expected = torch.autograd.grad(ops.topk(2 * pre, 3)[0].sum(), pre)[0]
        assert torch.equal(pre.grad, expected)


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"k: expected a whole number from 1 to L = 4; got 5"):
        ops.topk(torch.zeros(2, 4), 5)
    for k in (True, 3.0):
        with pytest.raises(ArgumentError, match=f"k: expected a whole number from 1 to L = 4; got {k}"):
            ops.topk(torch.zeros(2, 4), k)
    with pytest.raises(ArgumentError, match="pre_acts: expected a floating-point tensor"):
        ops.topk(torch.zeros(2, 4, dtype=torch.int64), 1)
