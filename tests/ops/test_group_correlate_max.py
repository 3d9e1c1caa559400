"""group_correlate_max: against z and its maximum in fp64, ties, NaN, gradients, edges."""

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.errors import ArgumentError, BackendError
from helpers.backends import DEVICE
from helpers.gather_cases import within_twice

INF, NAN = float("inf"), float("nan")


def inputs(device, group, dtype=torch.float32, N=5, L=7, D=13):
    generator = torch.Generator().manual_seed(1)
    acts, W, b = (
        torch.randn(*shape, generator=generator) for shape in ((N, group.order, D), (L, group.order, D), (L,))
    )
    return [x.to(device, dtype) for x in (acts, W / max(D, 1) ** 0.5, b)]


def z_of(group, acts, W, b):
    """In float64, z + b, whole."""
    with ops.use_backend("reference"):
        return ops.group_correlate(acts.cpu().double(), W.cpu().double(), group) + b.cpu().double()[:, None]


def values_and_gradients(group, given, upstream, poses=None):
    """On the backend in force, or of z at the given poses."""
    leaves = [x.detach().requires_grad_() for x in given]
    if poses is None:
        values, poses = ops.group_correlate_max(*leaves, group)
    else:
        with ops.use_backend("reference"):
            z = ops.group_correlate(*leaves[:2], group) + leaves[2][:, None]
        values = z.gather(2, poses[:, :, None])[:, :, 0]
    return [values.detach(), *torch.autograd.grad(values, leaves, upstream)], poses


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["C1", "C5", "D3", "D8", "D32", "D40"])
def test_values_poses_and_gradients(device, name, dtype):
    group = groupcc.group(name)
    if dtype != torch.float32 and ops.current_backend() == "cpp":
        pytest.skip("no kernel for 16 bits")
    given = inputs(device, group, dtype, *((11, 9, 13) if name == "D3" else ()))
    upstream = torch.randn(len(given[0]), len(given[2]), generator=torch.Generator().manual_seed(2)).to(device, dtype)
    got, poses = values_and_gradients(group, given, upstream)
    z = z_of(group, *given)
    tolerance = 2e-6 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    assert poses.dtype == torch.int64
    assert got[0].dtype == dtype
    at_pose = z.gather(2, poses.cpu()[:, :, None])[:, :, 0]
    assert ((z.amax(2) - at_pose) / z.abs().max()).max() <= tolerance
    same_dtype, _ = values_and_gradients(group, given, upstream, poses)
    exact, _ = values_and_gradients(group, [x.cpu().double() for x in given], upstream.cpu().double(), poses.cpu())
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        assert one.shape == truth.shape
        if dtype == torch.float32:
            assert float((one.cpu() - truth).abs().max() / truth.abs().max()) < 2e-6
        else:
            within_twice(one, other, truth)


def delta(device, group, rows, dtype=torch.float32):
    """Orbits that are 1 at the identity alone, and W [L, G, 1] = rows, which z then equals."""
    acts = torch.zeros(1, group.order, 1)
    acts[0, group.identity] = 1
    return acts.to(device, dtype), torch.tensor(rows)[:, :, None].to(device, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_lower_of_equal_poses(device, dtype):
    """In groups of 1, 4 and 8 elements, whose transforms of whole numbers and sums of these are exact."""
    if dtype != torch.float32 and ops.current_backend() == "cpp":
        pytest.skip("no kernel for 16 bits")
    group = groupcc.group("C1")
    acts, W = delta(device, group, [[-2.0], [0.0], [4.0]], dtype)
    values, poses = ops.group_correlate_max(acts, W, torch.zeros(3, device=device, dtype=dtype), group)
    assert values.tolist() == [[-2, 0, 4]]
    assert poses.tolist() == [[0, 0, 0]]
    group = groupcc.group("D2")
    acts, W = delta(device, group, [[-4.0, -1.0, -3.0, -2.0], [5.0, 6.0, 8.0, 7.0], [1.0, 8.0, 2.0, 8.0]], dtype)
    b = torch.tensor([-0.5, 0.0, 0.0], device=device, dtype=dtype)
    values, poses = ops.group_correlate_max(acts, W, b, group)
    assert values.tolist() == [[-1.5, 8, 8]]
    assert poses.tolist() == [[1, 2, 1]]
    group = groupcc.group("D4")
    zeros = torch.zeros(3, 8, 2, device=device, dtype=dtype)
    b = torch.tensor([0.0, -1.5, 3.0], device=device, dtype=dtype)
    values, poses = ops.group_correlate_max(zeros, zeros, b, group)
    assert values.tolist() == [b.tolist()] * 3
    assert not poses.any()
    ones = torch.ones(2, 8, 2, device=device, dtype=dtype)
    assert not ops.group_correlate_max(ones, ones, torch.full_like(ones[:, 0, 0], 2.0**30), group)[1].any()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_what_is_not_finite_stays_visible_and_in_its_place(device, bad):
    group = groupcc.group("D3")
    acts, W, b = inputs(device, group)
    expected, _ = ops.group_correlate_max(acts, W, b, group)
    for tensor, spoiled in ((acts, (0, slice(None))), (W, (slice(None), 0)), (b, (slice(None), 0))):
        given = [x.clone() if x is tensor else x for x in (acts, W, b)]
        next(x for x, y in zip(given, (acts, W, b), strict=True) if x is not y)[0] = bad
        values, poses = ops.group_correlate_max(*given, group)
        assert not values[spoiled].isfinite().any()
        mask = torch.ones_like(values, dtype=torch.bool)
        mask[spoiled] = False
        torch.testing.assert_close(values[mask], expected[mask])
        assert ((poses >= 0) & (poses < 6)).all()


@pytest.mark.parametrize("shape", [{"N": 0}, {"L": 0}, {"D": 0}], ids=str)
def test_empty(device, shape):
    group = groupcc.group("D3")
    given = [x.requires_grad_() for x in inputs(device, group, **shape)]
    values, poses = ops.group_correlate_max(*given, group)
    assert values.shape == poses.shape == (len(given[0]), len(given[1]))
    assert torch.equal(values, given[2].expand_as(values))
    values.sum().backward()
    assert [x.grad.shape for x in given] == [x.shape for x in given]


def test_any_strides_and_only_the_gradients_asked_for(device):
    group = groupcc.group("D4")
    given = inputs(device, group)
    upstream = torch.randn(7, 5, generator=torch.Generator().manual_seed(3)).to(device).t()
    expected, poses = values_and_gradients(group, given, upstream.contiguous())
    others = [x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in given[:2]]
    others.append(given[2].repeat_interleave(2)[::2])
    got, same = values_and_gradients(group, others, upstream)
    assert torch.equal(same, poses)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other)
    for needed in ((True, False, False), (False, True, False), (False, False, True)):
        leaves = [x.clone().requires_grad_(need) for x, need in zip(given, needed, strict=True)]
        ops.group_correlate_max(*leaves, group)[0].backward(upstream)
        assert [x.grad is not None for x in leaves] == list(needed)
        torch.testing.assert_close(leaves[needed.index(True)].grad, expected[1 + needed.index(True)])


def test_opcheck():
    pytest.importorskip("triton")
    for name in ("C5", "D3"):
        given = [x.requires_grad_() for x in inputs(DEVICE["triton"], groupcc.group(name))]
        torch.library.opcheck(torch.ops.groupcc.group_correlate_max.default, (*given, name, "triton"))


def test_torch_compile(device):
    torch._dynamo.reset()
    group = groupcc.group("D3")
    acts, W, b = inputs(device, group)

    def step(W):
        return ops.group_correlate_max(acts, W, b, group)[0].square().sum()

    leaf, compiled = W.clone().requires_grad_(), W.clone().requires_grad_()
    step(leaf).backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, leaf.grad)


def test_errors():
    group = groupcc.group("D3")
    acts, W, b = inputs("cpu", group)
    with pytest.raises(ArgumentError, match=r"b: expected torch.float32 of shape \[L\] = \[7\]; got .* \(6,\)"):
        ops.group_correlate_max(acts, W, b[:6], group)
    with pytest.raises(ArgumentError, match=r"b: expected torch.float32 .*; got torch.float64"):
        ops.group_correlate_max(acts, W, b.double(), group)
    with pytest.raises(ArgumentError, match="acts: expected a floating-point tensor"):
        ops.group_correlate_max(acts[:, :4], W, b, group)
    pytest.importorskip("triton")
    with ops.use_backend("triton"), pytest.raises(BackendError, match=r"got torch\.float64"):
        ops.group_correlate_max(acts.double(), W.double(), b.double(), group)
