"""orbit_gather on every implementation: by hand, against the sum over pixels in fp64, gradients, edges."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.ops.orbit_gather import sampling_taps
from helpers.backends import COMPILED, IMPLEMENTATIONS, running, skip_on_gpu
from helpers.gather_cases import DTYPES, by_definition, some_points, within_twice

gradcheck = torch.autograd.gradcheck
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(params=IMPLEMENTATIONS)
def device(request):
    with running(request.param, "orbit_gather") as device:
        yield device


def both_gradients(maps, points, interpolation, weight):
    """Values and d_maps on the implementation in force, then on the reference."""
    for backend in (ops.current_backend(), "reference"):
        leaf = maps.detach().requires_grad_()
        with ops.use_backend(backend):
            acts = ops.orbit_gather(leaf, points, interpolation)
        acts.backward(weight)
        yield acts, leaf.grad


def test_bilinear_by_hand(device):
    maps = torch.arange(12.0, device=device).view(1, 1, 3, 4, 1)  # value = 4y + x
    points = torch.tensor([[[1.0, 2.0], [0.5, 0.25]], [[3.0, 0.0], [2.75, 1.5]]])
    acts = ops.orbit_gather(maps, points)
    assert acts.shape == (2, 2, 1)
    assert acts[:, :, 0].tolist() == [[9.0, 3.0], [1.5, 8.75]]


def test_each_element_reads_its_own_map(device):
    G = group("D4")
    maps = torch.rand(2, 8, 5, 5, 3, device=device)
    points = torch.from_numpy(G.matrices @ [1.0, -2.0] + 2)[:, None]
    acts = ops.orbit_gather(maps, points)
    for b in range(2):
        for g in range(8):
            x, y = (int(v) for v in points[g, 0].round())
            assert torch.equal(acts[b, g], maps[b, g, y, x])


def test_bspline_reproduces_linear_maps_and_has_the_same_width_everywhere(device):
    points = torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 4 + 1.2
    _, weights = sampling_taps(points, 8, 8, "bspline")
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 50, dtype=torch.float64))
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")

    def sampled(picture, interpolation):
        maps = picture.float().to(device).view(1, 1, 8, 8, 1)
        return ops.orbit_gather(maps, points, interpolation)[..., 0].T.cpu().double()

    torch.testing.assert_close(sampled(3 * x - 2 * y, "bspline"), 3 * points[..., 0] - 2 * points[..., 1], **CLOSE)
    # Its variance, 1/4 along each axis, adds to x² wherever the point lies; bilinear's depends on the point.
    torch.testing.assert_close(sampled(x**2 + y**2, "bspline"), points.square().sum(-1) + 0.5, **CLOSE)
    excess = sampled(x**2 + y**2, "bilinear") - points.square().sum(-1)
    assert excess.max() - excess.min() > 0.3


@pytest.mark.parametrize("interpolation", ["bilinear", "bspline"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("B", "S", "G", "P", "H", "W", "D"),
    [
        (2, 4, 4, 5, 6, 7, 19),
        (1, 1, 5, 7, 5, 4, 33),
        (3, 1, 1, 1, 3, 3, 1),
        (1, 3, 3, 1, 4, 9, 130),
        (2, 1, 3, 4, 4, 4, 64),
        (1, 1, 9, 5, 5, 5, 70),
    ],
)
def test_values_and_gradients(device, interpolation, dtype, B, S, G, P, H, W, D):
    skip_on_gpu(dtype)
    torch.manual_seed(D)
    maps = torch.randn(B, S, H, W, D).to(device, dtype)
    points = some_points(G, P, H, W)
    weight = torch.randn(B * P, G, D).to(device, dtype)
    (acts, d_maps), (ref_acts, ref_d_maps) = both_gradients(maps, points, interpolation, weight)
    assert acts.dtype == d_maps.dtype == dtype
    wide = maps.cpu().double().requires_grad_()
    exact = by_definition(wide, points, interpolation)
    exact.backward(weight.cpu().double())
    within_twice(acts, ref_acts, exact.detach())
    within_twice(d_maps, ref_d_maps, wide.grad)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_lattice_points_are_copies_whatever_lies_beside_them(device, dtype):
    skip_on_gpu(dtype)
    maps = torch.randn(1, 2, 4, 5, 21).to(device, dtype)
    maps[0, :, 0, 0] = float("inf")
    maps[0, :, 1, 2] = float("nan")
    maps[0, :, 3, 4] = -float("inf")
    if not (dtype == torch.bfloat16 and ops.current_backend() == "triton"):  # 0 to Triton's interpreter, not to a GPU
        maps[0, :, 2, 2] = torch.finfo(dtype).tiny / 4
    x, y = torch.meshgrid(torch.arange(5.0), torch.arange(4.0), indexing="ij")
    points = torch.stack([x, y], -1).view(1, 20, 2).repeat(2, 1, 1).double()
    points[1] += 9e-7 * torch.tensor([1.0, -1.0])  # rounding in the group's matrices
    acts = ops.orbit_gather(maps, points).view(20, 2, 21).cpu()
    expected = maps[0].cpu().transpose(1, 2).reshape(2, 20, 21).transpose(0, 1)
    assert torch.equal(acts.isnan(), expected.isnan())
    assert torch.equal(acts.nan_to_num(7.0, 9.0, -9.0), expected.nan_to_num(7.0, 9.0, -9.0))


def test_nan_and_infinity_spread_to_points_with_a_share_only(device):
    maps = torch.zeros(1, 1, 3, 4, 2, device=device)
    maps[0, 0, 1, 1] = torch.tensor([float("nan"), float("inf")])
    points = torch.tensor([[[0.5, 1.0], [0.0, 1.0], [2.0, 0.5], [1.5, 0.25]]])
    acts = ops.orbit_gather(maps, points)[:, 0]
    assert acts.isnan().tolist() == [[True, False], [False, False], [False, False], [True, False]]
    assert acts[:, 1].isinf().tolist() == [True, False, False, True]


def test_nan_gradients_spread_to_pixels_with_a_share_only(device):
    maps = torch.zeros(1, 1, 3, 4, 1, device=device, requires_grad=True)
    points = torch.tensor([[[0.5, 1.0], [0.0, 1.0], [2.0, 0.5], [3.0, 2.0]]])
    ops.orbit_gather(maps, points).backward(torch.tensor([float("nan"), 1.0, 2.0, 4.0], device=device)[:, None, None])
    d_maps = maps.grad.view(3, 4).cpu()
    assert d_maps.isnan().nonzero().tolist() == [[1, 0], [1, 1]]
    assert d_maps.nan_to_num().tolist() == [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 4.0]]


@pytest.mark.parametrize("S", [1, 3])
def test_views_need_not_be_contiguous(device, S):
    points = some_points(3, 4, 5, 6)
    base = torch.randn(2, S, 5, 6, 9, device=device)
    expected = ops.orbit_gather(base, points, "bspline")
    channels_first = base.permute(0, 1, 4, 2, 3).contiguous().permute(0, 1, 3, 4, 2)
    padded = torch.zeros(2, 2 * S, 8, 7, 12, device=device)
    padded[:, ::2, 1:6, :6, 2:11] = base
    for view in (channels_first, padded[:, ::2, 1:6, :6, 2:11], base.flip(2).flip(2)):
        assert torch.equal(ops.orbit_gather(view, points, "bspline"), expected)
    one = base[:1].expand(2, S, 5, 6, 9)
    assert torch.equal(ops.orbit_gather(one, points), ops.orbit_gather(base[:1].repeat(2, 1, 1, 1, 1), points))
    weight = torch.randn(9, 3, 8, device=device).permute(2, 1, 0)
    leaf = base.clone().requires_grad_()
    ops.orbit_gather(leaf, points).backward(weight)
    other = base.clone().requires_grad_()
    ops.orbit_gather(other, points).backward(weight.contiguous())
    assert torch.equal(leaf.grad, other.grad)


def test_points_may_be_written_to_between_calls(device):
    maps, points = torch.randn(1, 3, 6, 6, 4, device=device), some_points(3, 5, 6, 6).to(device)
    ops.orbit_gather(maps, points)
    points.copy_(some_points(3, 5, 6, 6, seed=1))
    assert torch.equal(ops.orbit_gather(maps, points), ops.orbit_gather(maps, points.clone()))


@pytest.mark.parametrize("implementation", COMPILED)
def test_maps_more_than_2_to_the_31_elements_apart(implementation):
    try:
        memory = torch.empty(2**31 + 36, dtype=torch.bfloat16)  # of which a few pages are touched
    except RuntimeError as error:
        pytest.skip(f"4 GiB of address space: {error}")
    maps = memory.as_strided((1, 2, 3, 3, 4), (1, 2**31, 12, 4, 1))
    maps.copy_(torch.randn(1, 2, 3, 3, 4))
    with running(implementation, "orbit_gather"):
        acts = ops.orbit_gather(maps, some_points(2, 5, 3, 3, margin=0))
        assert torch.equal(acts, ops.orbit_gather(maps.clone(), some_points(2, 5, 3, 3, margin=0)))


@pytest.mark.parametrize(("B", "G", "P", "D"), [(0, 2, 3, 4), (2, 0, 3, 4), (2, 2, 0, 4), (2, 2, 3, 0)])
@pytest.mark.parametrize("shared", [False, True])
def test_empty(device, B, G, P, D, shared):
    maps = torch.randn(B, 1 if shared else G, 4, 4, D, device=device, requires_grad=True)
    acts = ops.orbit_gather(maps, torch.ones(G, P, 2), "bspline")
    assert acts.shape == (B * P, G, D)
    acts.sum().backward()
    assert maps.grad.shape == maps.shape
    assert not maps.grad.any()


@pytest.mark.parametrize("interpolation", ["bilinear", "bspline"])
@pytest.mark.parametrize("S", [1, 3])
def test_gradcheck(device, interpolation, S):
    skip_on_gpu(torch.float64)
    torch.manual_seed(4)
    maps = torch.randn(2, S, 4, 5, 2, dtype=torch.float64, device=device, requires_grad=True)
    slow = ops.current_backend() == "triton"  # in its interpreter
    assert gradcheck(lambda m: ops.orbit_gather(m, some_points(3, 3, 4, 5), interpolation), (maps,), fast_mode=slow)


@pytest.mark.parametrize("interpolation", ["bilinear", "bspline"])
def test_points_outside(device, interpolation):
    margin = {"bilinear": 0, "bspline": 1}[interpolation]
    maps = torch.zeros(1, 1, 4, 5, 1, device=device)
    inside = [[margin, 1.5], [4 - margin, 3 - margin], [4 - margin + 9e-7, margin - 9e-7]]
    points = torch.tensor([inside, inside, inside], dtype=torch.float64)
    assert ops.orbit_gather(maps, points, interpolation).shape == (3, 3, 1)
    for x, y in (
        (margin - 0.5, 2),
        (2, margin - 0.01),
        (4.5 - margin, 2),
        (2, 3.01 - margin),
        (float("nan"), 2),
        (2, float("inf")),
    ):
        outside = points.clone()
        outside[1, 2], outside[2, 0] = torch.tensor([x, y]), torch.tensor([-9.0, -9.0])
        with pytest.raises(ArgumentError, match=r"points: expected x from .* got \(.*\) for element 1, position 2"):
            ops.orbit_gather(maps, outside, interpolation)


def test_the_same_bits_every_time_and_on_any_number_of_threads(device):
    maps = torch.randn(2, 1, 7, 7, 37, device=device)
    points, weight = some_points(6, 9, 7, 7), torch.randn(18, 6, 37, device=device)

    def run():
        leaf = maps.clone().requires_grad_()
        acts = ops.orbit_gather(leaf, points, "bspline")
        acts.backward(weight)
        return acts.detach(), leaf.grad

    before, first = torch.get_num_threads(), run()
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            assert all(torch.equal(one, other) for one, other in zip(first, run(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_wrong_arguments():
    maps = torch.zeros(1, 1, 4, 4, 1)
    with pytest.raises(ArgumentError, match="S = 1 or S = G = 3"):
        ops.orbit_gather(torch.zeros(1, 2, 4, 4, 1), torch.ones(3, 1, 2))
    with pytest.raises(ArgumentError, match="interpolation"):
        ops.orbit_gather(maps, torch.ones(1, 1, 2), "nearest")
    with pytest.raises(ArgumentError, match="maps: expected a floating-point tensor"):
        ops.orbit_gather(maps.long(), torch.ones(1, 1, 2))
    with pytest.raises(ArgumentError, match=r"points: expected a floating-point tensor \[G, P, 2\]"):
        ops.orbit_gather(maps, torch.ones(1, 2))


@pytest.mark.parametrize("implementation", ["cpp", "triton"])
def test_opcheck(implementation):
    with running(implementation, "orbit_gather") as device:
        for S in (1, 2):
            maps = torch.randn(2, S, 4, 4, 3, device=device, requires_grad=True)
            args = (maps, some_points(2, 3, 4, 4), "bspline", implementation)
            torch.library.opcheck(torch.ops.groupcc.orbit_gather.default, args)


def test_torch_compile(device):
    torch._dynamo.reset()
    maps, points = torch.randn(2, 3, 5, 5, 4, device=device), some_points(3, 4, 5, 5)

    def step(maps):
        return ops.orbit_gather(maps, points, "bspline").square().sum((0, 2))

    leaf, compiled = maps.clone().requires_grad_(), maps.clone().requires_grad_()
    step(leaf).sum().backward()
    torch.compile(step, fullgraph=True, backend="aot_eager")(compiled).sum().backward()
    torch.testing.assert_close(compiled.grad, leaf.grad)
