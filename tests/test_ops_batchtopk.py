"""batchtopk on every implementation against a brute-force sort."""

import pytest
import torch
from backends import IMPLEMENTATIONS, running
from selection_cases import DTYPES, brute_batchtopk, same, tables

from groupcc import ops
from groupcc.errors import ArgumentError


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "batchtopk") as device:
        yield device


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
    for pre in tables(L, dtype).values():
        check(pre, k, device)


def test_views(device):
    pre = torch.randn(12, 40)
    for view in (pre[:, 3:30], pre[::2], pre.t(), pre[:, ::3], pre[:1].expand(5, 40), pre.t()[5:30, 1:7]):
        check(view, 3, device)


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
    pre = torch.tensor([[2.0, -1, 4, 1], [-2, -3, 1, -4]], dtype=dtype).to(device).requires_grad_()
    acts, indices, threshold = ops.batchtopk(pre, 3)
    assert not threshold.requires_grad
    assert indices.tolist() == [[2, 0, 3], [2, 0, 0]]
    (acts * torch.tensor([[3.0, 5, 7], [9, 11, 13]], dtype=dtype, device=device)).sum().backward()
    assert pre.grad.tolist() == [[5, 0, 3, 7], [0, 0, 9, 0]]


def test_gradcheck(device):
    torch.manual_seed(1)
    pre = torch.randn(4, 6, dtype=torch.float64, device=device, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: ops.batchtopk(x, 2)[0], (pre,))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="pre_acts"):
        ops.batchtopk(torch.zeros(4), 1)
