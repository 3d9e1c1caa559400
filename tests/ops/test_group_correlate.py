"""group_correlate: the direct sum against the definition, the Fourier path against the direct sum."""

import sys

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.ops.group_correlate.fourier import group_correlate_fourier
from groupcc.ops.group_correlate.plan import plan_of, saved_by_fourier
from helpers.backends import COMPILED, running

GROUPS = [f"{kind}{n}" for kind in "CD" for n in (*range(1, 13), 32)]


def direct(acts, W, group):
    with ops.use_backend("reference"):
        return ops.group_correlate(acts, W, group)


def random(group, N=5, L=3, D=7, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(n, group.order, D, generator=generator, dtype=torch.float64).to(dtype) for n in (N, L))


def test_by_hand():
    """D2: elements e, r (180 degrees), s, rs; blocks of one channel."""
    group = groupcc.group("D2")
    W = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]])
    acts = torch.tensor([[[1.0], [0.0], [0.0], [0.0]], [[0.0], [10.0], [1.0], [0.0]]])
    # a = e reads W[h]; the second reads 10 · W[r h] + W[s h].
    expected = torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[23.0, 14.0, 41.0, 32.0]]])
    torch.testing.assert_close(direct(acts, W, group), expected)
    torch.testing.assert_close(group_correlate_fourier(acts, W, group), expected)


@pytest.mark.parametrize("name", ["C3", "D3", "D4"])
def test_direct_sum_is_the_definition(name):
    group = groupcc.group(name)
    acts, W = random(group, dtype=torch.float64)
    z = torch.zeros(len(acts), len(W), group.order, dtype=torch.float64)
    for g in range(group.order):
        for h in range(group.order):
            z[:, :, h] += acts[:, g] @ W[:, group.cayley[g, h]].t()
    torch.testing.assert_close(direct(acts, W, group), z)


def by(implementation, acts, W, group):
    if implementation == "PyTorch":
        return group_correlate_fourier(acts, W, group)
    with running(implementation, "group_correlate"):
        return ops.group_correlate(acts, W, group)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("implementation", ["PyTorch", *COMPILED])
def test_fourier_equals_the_direct_sum(name, implementation):
    """Values and gradients within 2e-6 of the largest, in fp32, as measured against fp64."""
    group = groupcc.group(name)
    # 117 elements: vectors three at a time, one at a time, and a rest, on every instruction set.
    inputs = [x.requires_grad_() for x in random(group, N=6, L=37, D=117)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    z, want = by(implementation, *inputs, group), direct(*exact, group)
    upstream = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    results = (z.detach(), *torch.autograd.grad(z, inputs, upstream))
    wanted = (want.detach(), *torch.autograd.grad(want, exact, upstream.double()))
    for result, expected in zip(results, wanted, strict=True):
        assert result.shape == expected.shape
        assert float((result - expected).abs().max() / expected.abs().max()) < 2e-6


@pytest.mark.parametrize("name", ["C1", "C2", "C5", "D1", "D2", "D3", "D4"])
@pytest.mark.parametrize("implementation", ["reference", "PyTorch", *COMPILED])
def test_gradcheck(name, implementation):
    group = groupcc.group(name)
    acts, W = (x.requires_grad_() for x in random(group, N=2, L=2, D=3, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda a, w: by(implementation, a, w, group), (acts, W))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_same_for_any_threads(threads):
    if not COMPILED:
        pytest.skip("no extension")
    group, before = groupcc.group("D8"), torch.get_num_threads()
    inputs = list(random(group, N=5, L=37, D=117))
    once = by(COMPILED[-1], *inputs, group)
    try:
        torch.set_num_threads(threads)
        torch.testing.assert_close(by(COMPILED[-1], *inputs, group), once, rtol=1e-6, atol=1e-6)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["C5", "D4"])
def test_opcheck(name):
    if not COMPILED:
        pytest.skip("no extension")
    group = groupcc.group(name)
    acts, W = (x.requires_grad_() for x in random(group))
    torch.library.opcheck(torch.ops.groupcc.group_correlate.default, (acts, W, name, "cpp"))
    z, acts_hat, W_hat = torch.ops.groupcc.group_correlate(acts.detach(), W.detach(), name, "cpp")
    for need_acts in (True, False):
        arguments = (torch.ones_like(z), acts_hat, W_hat, acts.shape[2], name, need_acts, "cpp")
        torch.library.opcheck(torch.ops.groupcc.group_correlate_backward.default, arguments)


def test_only_the_gradients_asked_for():
    group = groupcc.group("D8")
    for needed in ((True, False), (False, True)):
        inputs = [x.requires_grad_(need) for x, need in zip(random(group), needed, strict=True)]
        ops.group_correlate(*inputs, group).sum().backward()
        assert [x.grad is not None for x in inputs] == list(needed)


def test_a_translated_orbit_permutes_the_poses():
    group = groupcc.group("D6")
    acts, W = random(group, dtype=torch.float64)
    z = ops.group_correlate(acts, W, group)
    for h in range(group.order):
        translated = ops.group_correlate(acts[:, group.right_translation[h].tolist()], W, group)
        torch.testing.assert_close(translated[:, :, group.cayley[h].tolist()], z)


@pytest.mark.parametrize("shape", [(0, 3, 7), (5, 0, 7), (5, 3, 0)])
def test_empty(shape):
    group, (N, L, D) = groupcc.group("D8"), shape
    for backend in ("reference", "auto"):
        with ops.use_backend(backend):
            z = ops.group_correlate(torch.ones(N, 16, D), torch.ones(L, 16, D), group)
        assert z.shape == (N, L, 16)
        assert bool((z == 0).all())


def test_any_strides():
    group = groupcc.group("D8")
    acts, W = random(group)
    strided = acts.permute(2, 1, 0).contiguous().permute(2, 1, 0), W.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    torch.testing.assert_close(ops.group_correlate(*strided, group), ops.group_correlate(acts, W, group))


def test_tables_made_in_inference_or_for_another_device_serve_later():
    """They are kept for the next call, which may need gradients, whatever PyTorch's default device was."""
    group = groupcc.group("D10")
    acts, W = (x.requires_grad_() for x in random(group))
    for way in ("PyTorch", *COMPILED[-1:]):
        plan_of.cache_clear()
        if COMPILED:
            group_folds = sys.modules["groupcc.ops.group_folds"]
            group_folds.folds_of.cache_clear()
            group_folds.elements.cache_clear()
            group_folds._coefficients.cache_clear()
        with torch.inference_mode(), torch.device("meta"):
            by(way, acts.detach(), W.detach(), group)
        z = by(way, acts, W, group)
        torch.testing.assert_close(z, direct(acts, W, group))
        for gradient in torch.autograd.grad(z.sum(), (acts, W)):
            assert gradient.isfinite().all()


def test_backends(monkeypatch):
    """The reference takes no transform; elsewhere bfloat16, which has no kernel, goes by PyTorch's products."""
    used = []
    module = sys.modules["groupcc.ops.group_correlate"]
    monkeypatch.setattr(module, "group_correlate_fourier", lambda *args: used.append(args[2].name))
    for backend in ("reference", "auto"):
        for name in ("D1", "D8"):
            group = groupcc.group(name)
            with ops.use_backend(backend):
                ops.group_correlate(*random(group, dtype=torch.bfloat16), group)
    assert used == ["D8"]
    assert saved_by_fourier(groupcc.group("D32")) == pytest.approx(4096 / 124)


@pytest.mark.parametrize(
    ("acts", "W", "message"),
    [
        (torch.ones(2, 7, 3), torch.ones(2, 8, 3), r"acts: expected .* G = 8"),
        (torch.ones(2, 8, 3, dtype=torch.int64), torch.ones(2, 8, 3), "acts: expected a floating-point"),
        (torch.ones(2, 8, 3), torch.ones(2, 8, 4), r"W: expected .* \[L, 8, 3\]"),
        (torch.ones(2, 8, 3), torch.ones(2, 8, 3).double(), "W: expected torch.float32"),
    ],
)
def test_errors(acts, W, message):
    with pytest.raises(groupcc.errors.ArgumentError, match=message):
        ops.group_correlate(acts, W, groupcc.group("D4"))
