"""decode_loss, from a target and from maps, on every implementation, against the reference in float64."""

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError
from helpers.backends import COMPILED, IMPLEMENTATIONS, running, skip_on_gpu
from helpers.decode_cases import DTYPES, SHAPES, WIDE_SHAPES, no_worse, results, sample


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


@pytest.fixture(params=COMPILED)
def compiled(request):
    return request.param


def compare(implementation, op, inputs, weights, dtype):
    with running(implementation, "decode_loss") as device:
        skip_on_gpu(dtype)
        moved = [x if x is None else x.to(device) for x in inputs]
        got = [x.cpu() for x in results(op, moved, weights)]
    with ops.use_backend("reference"):
        same_dtype = results(op, inputs, weights)
        exact = results(op, [x.double() if x.is_floating_point() else x for x in inputs], weights)
    no_worse(got, same_dtype, exact, dtype)


def weights(shape, of):
    N, _, _, G, D = shape
    generator = torch.Generator().manual_seed(1)
    loss, residual = torch.randn(G, generator=generator), torch.randn(N, G, D, generator=generator)
    return [loss if "loss" in of else None, residual if "residual" in of else None]


def maps_of(shape, S, dtype, interpolation="bilinear"):
    """Maps and points of N = B·P targets; the first element samples exactly on pixels."""
    N, _, _, G, D = shape
    generator = torch.Generator().manual_seed(2)
    B, P = (2, N // 2) if N % 2 == 0 and N else (1, N)
    maps = torch.randn(B, S, 5, 6, D, generator=generator).to(dtype)
    points = torch.rand(G, P, 2, generator=generator, dtype=torch.float64) * 2 + 1
    points[0] = points[0].round()
    return maps, points


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(implementation, shape, dtype):
    compare(implementation, ops.decode_loss, sample(shape, dtype), weights(shape, ["loss"]), dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", WIDE_SHAPES, ids=str)
def test_values_and_gradients_across_tiles_and_chunks(compiled, shape, dtype):
    compare(compiled, ops.decode_loss, sample(shape, dtype), weights(shape, ["loss"]), dtype)


@pytest.mark.parametrize("of", [["residual"], ["loss", "residual"]], ids=str)
def test_gradient_of_the_residual(implementation, of):
    compare(implementation, ops.decode_loss, sample(SHAPES[3]), weights(SHAPES[3], of), torch.float64)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("shape", "S", "interpolation"), [
    (SHAPES[1], 1, "bilinear"), (SHAPES[3], 2, "bilinear"), (SHAPES[3], 1, "bspline"),
])  # fmt: skip
def test_maps(implementation, shape, S, interpolation, dtype):
    check_maps(implementation, shape, S, interpolation, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("S", "interpolation"), [(1, "bilinear"), (7, "bspline")])
def test_maps_across_tiles(compiled, S, interpolation, dtype):
    check_maps(compiled, WIDE_SHAPES[1], S, interpolation, dtype)


def check_maps(implementation, shape, S, interpolation, dtype):
    acts, indices, W_dec, b_dec, _ = sample(shape, dtype)
    maps, points = maps_of(shape, S, dtype)

    def op(acts, indices, W_dec, b_dec):
        of = maps.to(W_dec)
        return ops.decode_loss_maps(acts, indices, W_dec, b_dec, of, points.to(of.device), interpolation)

    compare(implementation, op, [acts, indices, W_dec, b_dec], weights(shape, ["loss"]), dtype)


def test_maps_that_need_a_gradient(compiled):
    shape = (6, 2, 5, 3, 4)
    acts, indices, W_dec, b_dec, _ = sample(shape)
    maps, points = maps_of(shape, 3, torch.float64)
    with running(compiled, "decode_loss"):
        inputs = [x.requires_grad_() for x in (acts, W_dec, b_dec, maps)]
        assert torch.autograd.gradcheck(
            lambda a, W, b, m: ops.decode_loss_maps(a, indices, W, b, m, points), inputs, atol=1e-6, rtol=1e-6
        )


def test_a_pixel_of_weight_0_is_not_read(compiled):
    D = 43  # two vectors or more, and columns that fill none
    maps = torch.full((1, 1, 3, 3, D), float("nan"))
    maps[0, 0, 1, 1] = 2
    points = torch.tensor([[[1.0, 1.0]]])
    acts, indices = torch.ones(1, 1), torch.zeros(1, 1, dtype=torch.int64)
    with running(compiled, "decode_loss"):
        loss, residual = ops.decode_loss_maps(acts, indices, torch.ones(1, 1, D), None, maps, points)
    assert loss.tolist() == [D]
    assert residual.unique().tolist() == [-1]


def test_gradient_exact(compiled):
    for shape in (SHAPES[2], SHAPES[3], (7, 3, 2, 2, 9)):
        acts, indices, W_dec, b_dec, target = sample(shape)
        inputs = [x.requires_grad_() for x in (acts, W_dec, b_dec, target)]
        with running(compiled, "decode_loss"):
            assert torch.autograd.gradcheck(
                lambda a, W, b, t, indices=indices: ops.decode_loss(a, indices, W, b, t), inputs, atol=1e-6, rtol=1e-6
            )


def test_the_same_for_any_number_of_threads(compiled):
    shape = (130, 6, 90, 3, 300)
    inputs, before, found = sample(shape, torch.float32), torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5, 40):
            torch.set_num_threads(threads)
            with running(compiled, "decode_loss"):
                found.append(results(ops.decode_loss, inputs, weights(shape, ["loss"])))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_small_errors_in_many_rows_are_not_lost(compiled):
    """A float32 running sum of 2^14 · 32 equal squares would stop well before the end."""
    N, D = 1 << 14, 32
    target = torch.full((N, 1, D), 0.1)
    acts, indices = torch.zeros(N, 1), torch.zeros(N, 1, dtype=torch.int64)
    with running(compiled, "decode_loss"):
        loss, _ = ops.decode_loss(acts, indices, torch.ones(3, 1, D), None, target)
    assert abs(loss.item() / (N * D * target[0, 0, 0].double().square().item()) - 1) < 1e-6


def test_library_op(compiled):
    acts, indices, W_dec, b_dec, target = sample((6, 2, 9, 2, 5), torch.float32)
    a, W, b, t = (x.detach().requires_grad_() for x in (acts, W_dec, b_dec, target))
    maps, points = maps_of((6, 2, 9, 2, 5), 1, torch.float32)
    with running(compiled, "decode_loss"):
        op = torch.ops.groupcc.decode_loss.default
        torch.library.opcheck(op, (a, indices, W, b, t, None, "", "cpp"))
        torch.library.opcheck(op, (a, indices, W, b, maps, points, "bilinear", "cpp"))


def test_compiles(implementation):
    shape = (6, 2, 9, 2, 5)
    acts, indices, W_dec, b_dec, target = sample(shape, torch.float32)
    maps, points = maps_of(shape, 1, torch.float32)
    with running(implementation, "decode_loss") as device:
        given = [x.to(device) for x in (acts, indices, W_dec, b_dec, target)]
        maps, points = maps.to(device), points.to(device)

        def gathered(acts, indices, W_dec, b_dec):
            return ops.decode_loss_maps(acts, indices, W_dec, b_dec, maps, points)

        for op, inputs in ((ops.decode_loss, given), (gathered, given[:4])):
            eager = results(op, inputs, weights(shape, ["loss"]))
            compiled = torch.compile(op, fullgraph=True, backend="aot_eager")
            for a, b in zip(results(compiled, inputs, weights(shape, ["loss"])), eager, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_bad_arguments():
    acts, indices, W_dec, b_dec, target = sample((6, 2, 9, 2, 5), torch.float32)
    with pytest.raises(ArgumentError, match=r"target: expected \[N, G, D\] = \(6, 2, 5\)"):
        ops.decode_loss(acts, indices, W_dec, b_dec, target[:5])
    with pytest.raises(ArgumentError, match=r"target: expected torch\.float32"):
        ops.decode_loss(acts, indices, W_dec, b_dec, target.double())
    with pytest.raises(ArgumentError, match="b_dec"):
        ops.decode_loss(acts, indices, W_dec, b_dec[0], target)
    maps, points = maps_of((6, 2, 9, 2, 5), 1, torch.float32)
    with pytest.raises(ArgumentError, match=r"maps: expected maps and points of \[B·P, G, D\] = \(6, 2, 5\)"):
        ops.decode_loss_maps(acts, indices, W_dec, b_dec, maps[:1], points)
