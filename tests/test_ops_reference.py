"""The reference ops against hand-worked tables, brute force and fp64 gradcheck."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError, BackendError
from groupcc.groups import group
from groupcc.ops.backend import Op
from groupcc.ops.orbit_gather.reference import sampling_taps

gradcheck = torch.autograd.gradcheck


@pytest.mark.parametrize("n_latents", [6, 200])  # the dense and the gathered form
def test_sparse_decode_against_a_loop(n_latents):
    generator = torch.Generator().manual_seed(2)
    acts = torch.rand(7, 3, generator=generator, dtype=torch.float64)
    indices = torch.randint(0, n_latents, (7, 3), generator=generator)
    indices[0] = 4  # the same latent three times
    W_dec = torch.randn(n_latents, 4, 5, generator=generator, dtype=torch.float64)
    expected = torch.stack(
        [sum(a * W_dec[i] for a, i in zip(*row, strict=True)) for row in zip(acts, indices, strict=True)]
    )
    torch.testing.assert_close(ops.sparse_decode(acts, indices, W_dec), expected)
    acts.requires_grad_()
    W_dec.requires_grad_()
    assert gradcheck(lambda a, w: ops.sparse_decode(a, indices, w), (acts, W_dec))
    assert ops.sparse_decode(acts[:0], indices[:0], W_dec).shape == (0, 4, 5)


def test_orbit_gather_bilinear_by_hand():
    maps = torch.arange(12.0).view(1, 1, 3, 4, 1)  # value = 4y + x
    points = torch.tensor([[[1.0, 2.0], [0.5, 0.25]], [[3.0, 0.0], [2.75, 1.5]]])
    acts = ops.orbit_gather(maps, points)
    assert acts.shape == (2, 2, 1)
    assert acts[:, :, 0].tolist() == [[9.0, 3.0], [1.5, 8.75]]


def test_orbit_gather_reads_each_elements_own_map():
    G = group("D4")
    maps = torch.rand(2, 8, 5, 5, 3)
    points = torch.from_numpy(G.matrices @ [1.0, -2.0] + 2)[:, None]
    acts = ops.orbit_gather(maps, points)
    for b in range(2):
        for g in range(8):
            x, y = (int(v) for v in points[g, 0].round())
            assert torch.equal(acts[b, g], maps[b, g, y, x])


def test_bspline_reproduces_linear_maps_and_has_the_same_width_everywhere():
    points = torch.rand(3, 50, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 4 + 1.2
    _, weights = sampling_taps(points, 8, 8, "bspline")
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 50, dtype=torch.float64))
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")

    def sampled(picture, interpolation):
        return ops.orbit_gather(picture.double().view(1, 1, 8, 8, 1), points, interpolation)[..., 0].T

    torch.testing.assert_close(sampled(3 * x - 2 * y, "bspline"), 3 * points[..., 0] - 2 * points[..., 1])
    # Its variance, 1/4 along each axis, adds to x² wherever the point lies; bilinear's depends on the point.
    torch.testing.assert_close(sampled(x**2 + y**2, "bspline"), points.square().sum(-1) + 0.5)
    excess = sampled(x**2 + y**2, "bilinear") - points.square().sum(-1)
    assert excess.max() - excess.min() > 0.3


@pytest.mark.parametrize("interpolation", ["bilinear", "bspline"])
@pytest.mark.parametrize("S", [1, 3])
def test_orbit_gather_gradient(interpolation, S):
    torch.manual_seed(4)
    maps = torch.randn(2, S, 5, 6, 2, dtype=torch.float64, requires_grad=True)
    points = torch.rand(3, 4, 2, dtype=torch.float64) * 2 + 1
    assert gradcheck(lambda m: ops.orbit_gather(m, points, interpolation), (maps,))


def test_orbit_gather_refuses_points_outside():
    maps = torch.zeros(1, 1, 4, 4, 1)
    with pytest.raises(ArgumentError, match=r"points: .*\(3.5, 1\) for element 0, position 0"):
        ops.orbit_gather(maps, torch.tensor([[[3.5, 1.0]]]))
    with pytest.raises(ArgumentError, match="points"):
        ops.orbit_gather(maps, torch.tensor([[[float("nan"), 1.0]]]))
    with pytest.raises(ArgumentError, match="S = 1 or S = G = 3"):
        ops.orbit_gather(torch.zeros(1, 2, 4, 4, 1), torch.ones(3, 1, 2))
    with pytest.raises(ArgumentError, match="interpolation"):
        ops.orbit_gather(maps, torch.ones(1, 1, 2), "nearest")


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="indices"):
        ops.sparse_decode(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(4, 1, 1))
    with pytest.raises(ArgumentError, match="W_dec"):
        ops.sparse_decode(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 1, 1).half())


def test_a_named_backend_runs_or_raises(monkeypatch):
    monkeypatch.setattr("groupcc.ops.backend._ops", {})
    op = Op("double", lambda x: 2 * x, lambda x, backend: None, ("cpp",))
    op._modules = {"cpp": "no compiler"}
    one = torch.ones(())
    with ops.use_backend("triton"), pytest.raises(BackendError, match="double has no triton implementation"):
        op(one)
    with (
        pytest.raises(ArgumentError, match="name: expected one of auto, reference, cpp, triton"),
        ops.use_backend("cuda"),
    ):
        pass
    monkeypatch.setenv("GROUPCC_BACKEND", "cpp")
    with pytest.raises(BackendError, match="double: cpp is off: no compiler"):
        op(one)
    with ops.use_backend("reference"):
        assert op(one) == 2
    monkeypatch.setenv("GROUPCC_BACKEND", "fast")
    with pytest.raises(ArgumentError, match="GROUPCC_BACKEND"):
        op(one)


def test_auto_takes_the_backend_of_the_device_where_it_supports_the_input(monkeypatch):
    class Kernels:
        @staticmethod
        def unsupported(x):
            return None if x.dtype == torch.float32 else f"no {x.dtype}"

    monkeypatch.setattr("groupcc.ops.backend._ops", {})
    op = Op("double", lambda x: ("reference", 2 * x), lambda x, backend: (backend, 2 * x), ("cpp", "triton"))
    op._modules = {"cpp": Kernels, "triton": "no module named triton"}
    one = torch.ones(())
    with ops.use_backend("auto"):
        assert op(one) == ("cpp", 2)
        assert op(one.double()) == ("reference", 2)
    with ops.use_backend("reference"):
        assert op(one) == ("reference", 2)
    with ops.use_backend("cpp"), pytest.raises(BackendError, match=r"double on cpp: no torch.float64"):
        op(one.double())
    with ops.use_backend("triton"), pytest.raises(BackendError, match="double: triton is off: no module named triton"):
        op(one)
    assert op.available() == ["reference", "cpp"]
