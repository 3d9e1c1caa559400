"""group_correlate in Triton: against the direct sum in fp64, for each dtype, over several tiles; edges."""

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.errors import BackendError
from groupcc.ops.group_correlate.fourier import group_correlate_fourier
from groupcc.ops.group_correlate.plan import plan_of
from helpers.backends import running, skip_on_gpu
from helpers.gather_cases import within_twice


@pytest.fixture
def device():
    with running("triton", "group_correlate") as device:
        yield device


def inputs(device, group, dtype=torch.float32, N=3, L=5, D=29):
    generator = torch.Generator().manual_seed(0)
    acts, W = (torch.randn(n, group.order, D, generator=generator) for n in (N, L))
    upstream = torch.randn(N, L, group.order, generator=generator)
    return [x.to(device, dtype) for x in (acts, W / max(D, 1) ** 0.5, upstream)]


def values_and_gradients(backend, group, acts, W, upstream):
    leaves = [x.detach().requires_grad_() for x in (acts, W)]
    with ops.use_backend(backend):
        z = ops.group_correlate(*leaves, group)
    return [z.detach(), *torch.autograd.grad(z, leaves, upstream)]


@pytest.mark.parametrize("name", ["C1", "C2", "C5", "C12", "C32", "D1", "D2", "D3", "D8", "D11", "D32"])
def test_equals_the_direct_sum(device, name):
    """Values and gradients within 2e-6 of the largest, in fp32."""
    group = groupcc.group(name)
    given = inputs(device, group)
    got = values_and_gradients("triton", group, *given)
    exact = values_and_gradients("reference", group, *(x.cpu().double() for x in given))
    for result, expected in zip(got, exact, strict=True):
        assert result.shape == expected.shape
        assert float((result.cpu() - expected).abs().max() / expected.abs().max()) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", ["C5", "D8", "D40"])
def test_as_accurate_as_pytorch(device, name, dtype):
    """D40's matrices have 80 rows and columns: more than a tile, as the columns of acts and W are."""
    group = groupcc.group(name)
    given = inputs(device, group, dtype, N=7, L=11, D=31)
    got = values_and_gradients("triton", group, *given)
    same_dtype = values_and_gradients("reference", group, *given)
    exact = values_and_gradients("reference", group, *(x.cpu().double() for x in given))
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        assert one.dtype == dtype
        within_twice(one, other, truth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_coefficient_is_rounded_once(device, dtype):
    """The matrix counts as exact in 16-bit types too."""
    group = groupcc.group("D6")
    acts, W, _ = inputs(device, group, dtype)
    found = torch.ops.groupcc.group_correlate(acts, W, "D6", "triton")[1].cpu().double()
    plan = plan_of(group, torch.float64, torch.device("cpu"))
    exact = (
        (plan.left[: plan.sizes[0][0]] @ acts.cpu().double()).transpose(0, 1).flatten()
    )  # irreps of one dimension: [B, N, D]
    rounding = torch.finfo(dtype).eps / 2 * exact.abs()
    assert ((found[: exact.numel()] - exact).abs() <= 1.001 * rounding + 1e-6).all()


def test_nan_stays_in_its_example(device):
    acts, W, _ = inputs(device, groupcc.group("D3"))
    acts[0, 0, 0] = float("nan")
    z = ops.group_correlate(acts, W, groupcc.group("D3"))
    assert z[0].isnan().all()
    assert z[1:].isfinite().all()


@pytest.mark.parametrize("name", ["C1", "C5", "D3"])
def test_gradcheck(device, name):
    skip_on_gpu(torch.float64)
    group = groupcc.group(name)
    acts, W = (x.requires_grad_() for x in inputs(device, group, torch.float64, N=2, L=2, D=3)[:2])
    assert torch.autograd.gradcheck(lambda a, w: ops.group_correlate(a, w, group), (acts, W), fast_mode=True)


def test_coefficients_fit_float16(device):
    """Orbits and weights of one value everywhere: unscaled, the products would be |G| times z."""
    group = groupcc.group("D32")
    acts, W = (x.to(device) for x in (torch.full((2, 64, 1), 100.0), torch.ones(3, 64, 1)))
    expected = torch.full((2, 3, 64), 6400.0, device=device, dtype=torch.float16)
    for way in (ops.group_correlate, group_correlate_fourier):
        torch.testing.assert_close(way(acts.half(), W.half(), group), expected)


@pytest.mark.parametrize("shape", [{"N": 0}, {"L": 0}, {"D": 0}], ids=str)
def test_empty(device, shape):
    group = groupcc.group("D3")
    given = inputs(device, group, **shape)
    got = values_and_gradients("triton", group, *given)
    for result, expected in zip(got, values_and_gradients("reference", group, *given), strict=True):
        torch.testing.assert_close(result, expected)


def test_any_strides_and_only_the_gradients_asked_for(device):
    group = groupcc.group("D8")
    acts, W, upstream = inputs(device, group)
    expected = values_and_gradients("triton", group, acts, W, upstream)
    others = [x.permute(2, 1, 0).contiguous().permute(2, 1, 0) for x in (acts, W, upstream)]
    for result, wanted in zip(values_and_gradients("triton", group, *others), expected, strict=True):
        torch.testing.assert_close(result, wanted)
    for needed in ((True, False), (False, True)):
        leaves = [x.clone().requires_grad_(need) for x, need in zip((acts, W), needed, strict=True)]
        ops.group_correlate(*leaves, group).backward(upstream)
        assert [x.grad is not None for x in leaves] == list(needed)


@pytest.mark.parametrize("name", ["C5", "D4"])
def test_opcheck(device, name):
    acts, W, _ = inputs(device, groupcc.group(name))
    arguments = (acts.requires_grad_(), W.requires_grad_(), name, "triton")
    torch.library.opcheck(torch.ops.groupcc.group_correlate.default, arguments)


def test_too_many_columns(device):
    acts = torch.empty(1, 4, 1, device=device).expand(2**30, 4, 2)
    with pytest.raises(BackendError, match="must be less than 2\\^31, got 2147483648"):
        ops.group_correlate(acts, torch.empty(1, 4, 2, device=device), groupcc.group("D2"))
