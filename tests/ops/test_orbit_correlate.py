"""orbit_correlate and its maximum: against gathered orbits and the direct sum in fp64, taps, NaN, gradients, edges."""

import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.errors import ArgumentError, BackendError
from helpers.backends import DEVICE, ISAS, skip_on_gpu
from helpers.gather_cases import by_definition, some_points, within_twice

NAN, INF = float("nan"), float("inf")


def inputs(device, group, dtype=torch.float32, S=1, B=2, P=3, L=5, D=13, side=5):
    """maps, W and b; and points, from edge to edge for bilinear and as far out as the B-spline goes."""
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(B, S, side, side + 1, D, generator=generator)
    W, b = (torch.randn(*shape, generator=generator) for shape in ((L, group.order, D), (L,)))
    points = some_points(group.order, P, side, side + 1)
    return [x.to(device, dtype) for x in (maps, W / max(D, 1) ** 0.5, b)], points


def at_edges(points, interpolation, side=5):
    """The outermost points that the interpolation takes, among them each corner."""
    margin = {"bilinear": 0.0, "bspline": 1.0}[interpolation]
    points = points.clone()
    corners = torch.tensor([[x, y] for x in (margin, side - margin) for y in (margin, side - 1 - margin)])
    points[-1, : len(corners)] = corners[: points.shape[1]]
    points[0, -1] = corners[-1]
    return points


def on(backend, group, given, points, interpolation, upstream):
    """z and the gradients to maps and W."""
    leaves = [x.detach().requires_grad_() for x in given]
    with ops.use_backend(backend):
        z = ops.orbit_correlate(*leaves[:1], points, leaves[1], group, interpolation)
    return [z.detach(), *torch.autograd.grad(z, leaves, upstream)]


def exactly(group, given, points, interpolation, upstream):
    """`on` in float64: a dense matrix of weights, and the direct sum."""
    maps, W = (x.detach().cpu().double().requires_grad_() for x in given)
    with ops.use_backend("reference"):
        z = ops.group_correlate(by_definition(maps, points, interpolation), W, group)
    return [z.detach(), *torch.autograd.grad(z, (maps, W), upstream.cpu().double())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("name", "S", "interpolation"),
    [
        *(("C1", 1, "bilinear"), ("C5", 5, "bspline"), ("C12", 1, "bilinear"), ("D3", 6, "bilinear")),
        *(("D5", 1, "bspline"), ("D8", 16, "bspline"), ("D20", 40, "bilinear"), ("D40", 1, "bspline")),
    ],
)
def test_values_and_gradients(device, name, S, interpolation, dtype):
    """As accurate as the parts in PyTorch. D3 has channels of two tiles; D20 and D40 more elements than are read at a
    time, D40 more than a tile has."""
    group = groupcc.group(name)
    if dtype != torch.float32 and ops.current_backend() == "cpp":
        pytest.skip("no kernel for 16 bits")
    sizes = {"D3": {"P": 5, "D": 70}, "D40": {"B": 1}}.get(name, {})
    (maps, W, _), points = inputs(device, group, dtype, S, **sizes)
    points = at_edges(points, interpolation)
    N, L = len(maps) * points.shape[1], len(W)
    upstream = torch.randn(N, L, group.order, generator=torch.Generator().manual_seed(2)).to(device, dtype)
    got = on(ops.current_backend(), group, (maps, W), points, interpolation, upstream)
    same_dtype = on("reference", group, (maps, W), points, interpolation, upstream)
    exact = exactly(group, (maps, W), points, interpolation, upstream)
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        assert one.dtype == dtype
        assert one.shape == truth.shape
        within_twice(one, other, truth)
        if dtype == torch.float32:
            assert float((one.cpu() - truth).abs().max() / truth.abs().max()) < 2e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("name", "S"), [("C5", 1), ("D8", 16)])
def test_the_strongest_pose(device, name, S, dtype):
    group = groupcc.group(name)
    if dtype != torch.float32 and ops.current_backend() == "cpp":
        pytest.skip("no kernel for 16 bits")
    (maps, W, b), points = inputs(device, group, dtype, S)
    leaves = [x.clone().requires_grad_() for x in (maps, W, b)]
    values, poses = ops.orbit_correlate_max(leaves[0], points, *leaves[1:], group, "bspline")
    upstream = torch.randn(values.shape, generator=torch.Generator().manual_seed(3)).to(device, dtype)
    got = [values.detach(), *torch.autograd.grad(values, leaves, upstream)]
    assert poses.dtype == torch.int64

    def at_poses(given, gather):
        """z on the reference; and its entries at these poses, with their gradients."""
        maps, W, b = (x.detach().requires_grad_() for x in given)
        with ops.use_backend("reference"):
            z = ops.group_correlate(gather(maps, points, "bspline"), W, group) + b[:, None]
        chosen = z.gather(2, poses.to(z.device)[:, :, None])[:, :, 0]
        return z.detach(), [chosen.detach(), *torch.autograd.grad(chosen, (maps, W, b), upstream.to(chosen))]

    z, exact = at_poses([x.cpu().double() for x in (maps, W, b)], by_definition)
    tolerance = 2e-6 if dtype == torch.float32 else 8 * torch.finfo(dtype).eps
    assert ((z.amax(2) - exact[0]) / z.abs().max()).max() <= tolerance
    _, same_dtype = at_poses((maps, W, b), ops.orbit_gather)
    for one, other, truth in zip(got, same_dtype, exact, strict=True):
        assert one.dtype == dtype
        within_twice(one, other, truth)


@pytest.mark.parametrize("bad", [NAN, INF])
@pytest.mark.parametrize("S", [1, 6])
def test_what_is_not_finite_reaches_the_examples_that_read_it(device, S, bad):
    """Position 0 reads it under one element, position 1 beside it with weight 0, position 2 lies elsewhere."""
    group = groupcc.group("D3")
    (maps, W, b), points = inputs(device, group, S=S)
    points[:] = torch.tensor([[3.0, 3.0], [4.0, 3.0], [3.5, 2.5]])
    points[4, 0] = torch.tensor([0.5, 1.0])
    points[4, 1] = torch.tensor([0.0, 1.0])
    maps[1, 4 % S, 1, 1, 2] = bad
    z = ops.orbit_correlate(maps, points, W, group)
    values, poses = ops.orbit_correlate_max(maps, points, W, b, group)
    read = torch.tensor([False, False, False, True, False, False])
    for found in (z.flatten(1), values):
        assert torch.equal(found.isfinite().all(1).cpu(), ~read)
        assert not found.cpu()[read].isfinite().any()
    assert ((poses >= 0) & (poses < 6)).all()


@pytest.mark.parametrize("shape", [{"B": 0}, {"P": 0}, {"L": 0}, {"D": 0}], ids=str)
def test_empty(device, shape):
    group = groupcc.group("D3")
    given, points = inputs(device, group, **shape)
    maps, W, b = (x.requires_grad_() for x in given)
    N = len(maps) * points.shape[1]
    z = ops.orbit_correlate(maps, points, W, group)
    values, poses = ops.orbit_correlate_max(maps, points, W, b, group)
    assert z.shape == (N, len(W), 6)
    assert poses.shape == (N, len(W))
    assert torch.equal(values, b.expand_as(values))
    (z.sum() + values.sum()).backward()
    assert [x.grad.shape for x in given] == [x.shape for x in given]


def test_any_strides_and_only_the_gradients_asked_for(device):
    group = groupcc.group("D4")
    (maps, W, b), points = inputs(device, group, S=8)
    upstream = torch.randn(8, 5, 6, generator=torch.Generator().manual_seed(3)).to(device).permute(2, 1, 0)
    backend = ops.current_backend()
    expected = on(backend, group, (maps, W), points, "bspline", upstream.contiguous())
    others = [x.movedim(-1, 1).contiguous().movedim(1, -1) for x in (maps, W)]
    for one, other in zip(on(backend, group, others, points, "bspline", upstream), expected, strict=True):
        torch.testing.assert_close(one, other)
    values, _ = ops.orbit_correlate_max(maps, points, W, b, group)
    strided, _ = ops.orbit_correlate_max(others[0], points, others[1], b.repeat_interleave(2)[::2], group)
    torch.testing.assert_close(strided, values)
    for chosen in range(3):
        given = [x.clone().requires_grad_(i == chosen) for i, x in enumerate((maps, W, b))]
        ops.orbit_correlate_max(given[0], points, *given[1:], group)[0].sum().backward()
        assert [x.grad is not None for x in given] == [i == chosen for i in range(3)]


@pytest.mark.parametrize("name", ["C5", "D3"])
def test_gradcheck(device, name):
    skip_on_gpu(torch.float64)
    group = groupcc.group(name)
    (maps, W, _), points = inputs(device, group, torch.float64, B=1, P=2, L=2, D=2, side=4)
    slow = ops.current_backend() == "triton"  # in its interpreter
    assert torch.autograd.gradcheck(
        lambda m, w: ops.orbit_correlate(m, points, w, group, "bspline"),
        (maps.requires_grad_(), W.requires_grad_()),
        fast_mode=slow,
    )


@pytest.fixture
def kernels():
    pytest.importorskip("triton")
    with ops.use_backend("triton"):
        yield DEVICE["triton"]


def test_orbits_are_not_formed(kernels, monkeypatch):
    """Nor z where its maximum is asked for: neither is the result of any op called."""
    called = []
    for op in ("orbit_gather", "group_correlate", "group_correlate_max"):
        monkeypatch.setattr(ops.registered_ops()[op], "launch", lambda *args, op=op: called.append(op))
    group = groupcc.group("D8")
    (maps, W, b), points = inputs(kernels, group)
    assert ops.keeps_no_orbits(maps, points, W, b, group, "bilinear")
    ops.orbit_correlate(maps, points, W, group)
    ops.orbit_correlate_max(maps, points, W, b, group)
    assert not called
    for backend in ("reference", "cpp") if ISAS else ("reference",):
        with ops.use_backend(backend):
            assert not ops.keeps_no_orbits(maps.cpu(), points, W.cpu(), None, group, "bilinear")


def test_a_sample_is_rounded_as_the_gather_rounds_it(kernels):
    """Coefficients in 16 bits are those of group_correlate of the gathered orbits, to the bit but for their last."""
    group = groupcc.group("D5")
    for dtype in (torch.bfloat16, torch.float16):
        (maps, W, b), points = inputs(kernels, group, dtype)
        acts = ops.orbit_gather(maps, points, "bspline")
        found = torch.ops.groupcc.orbit_correlate(maps, points, W, b, "D5", "bspline", "triton")[2]
        expected = torch.ops.groupcc.group_correlate(acts, W, "D5", "triton")[1]
        torch.testing.assert_close(found, expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_opcheck(kernels):
    group = groupcc.group("D3")
    (maps, W, b), points = inputs(kernels, group, B=1, P=2, L=2, D=2, side=4)
    maps, W, b = (x.requires_grad_() for x in (maps, W, b))
    for bias in (None, b):
        arguments = (maps, points, W, bias, "D3", "bspline", "triton")
        torch.library.opcheck(torch.ops.groupcc.orbit_correlate.default, arguments)
        found, poses, *hats = torch.ops.groupcc.orbit_correlate(
            *(x if x is None else x.detach() for x in arguments[:4]), *arguments[4:]
        )
        for need_maps in (True, False):
            given = (torch.ones_like(found), None if bias is None else poses, *hats, points, maps.shape)
            torch.library.opcheck(
                torch.ops.groupcc.orbit_correlate_backward.default, (*given, "D3", "bspline", need_maps, "triton")
            )


def test_torch_compile(kernels):
    torch._dynamo.reset()
    group = groupcc.group("D4")
    (maps, W, b), points = inputs(kernels, group)

    def step(maps):
        return ops.orbit_correlate_max(maps, points, W, b, group, "bspline")[0].square().sum()

    leaf, compiled = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    step(leaf).backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, leaf.grad)


def test_what_kernels_do_not_take(kernels):
    group = groupcc.group("D3")
    (maps, W, b), points = inputs(kernels, group, torch.float64)
    with pytest.raises(BackendError, match=r"orbit_correlate on triton: .* got torch\.float64"):
        ops.orbit_correlate_max(maps, points, W, b, group)
    many = torch.empty(1, 1, 5, 6, 2, device=kernels).expand(2**30, 1, 5, 6, 2)
    with pytest.raises(BackendError, match=r"must be less than 2\^31, got 6442450944"):
        ops.orbit_correlate(many, points, W[:1, :, :2].float(), group)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.ones(5, 1, 2)}, r"points: expected \[G, P, 2\] with G = 6"),
        ({"points": torch.full((6, 1, 2), 4.5)}, "points: expected x from 0"),
        ({"maps": torch.ones(1, 2, 4, 4, 3)}, "maps: expected S = 1 or S = G = 6"),
        ({"W": torch.ones(2, 6, 4)}, r"W: expected torch.float32 of shape \[L, G, D\] = \[L, 6, 3\]"),
        ({"W": torch.ones(2, 6, 3).half()}, "W: expected torch.float32"),
        ({"b": torch.ones(3)}, r"b: expected torch.float32 of shape \[L\] = \[2\]"),
        ({"b": torch.ones(2).double()}, "b: expected torch.float32"),
        ({"interpolation": "nearest"}, "interpolation"),
    ],
)
def test_errors(device, change, message):
    given = {"maps": torch.ones(1, 1, 4, 4, 3), "points": torch.ones(6, 1, 2), "W": torch.ones(2, 6, 3)}
    given |= {"b": torch.ones(2), "group": groupcc.group("D3"), "interpolation": "bilinear"} | change
    with pytest.raises(ArgumentError, match=message):
        ops.orbit_correlate_max(**given)
    if "b" not in change:
        del given["b"]
        with pytest.raises(ArgumentError, match=message):
            ops.orbit_correlate(**given)
