"""sparse_decode and its gradients on every implementation, against the reference in float64."""

import pytest
import torch

from groupcc import ops
from helpers.backends import COMPILED, IMPLEMENTATIONS, running, skip_on_gpu
from helpers.decode_cases import DTYPES, SHAPES, WIDE_SHAPES, no_worse, results, sample


@pytest.fixture(params=IMPLEMENTATIONS)
def implementation(request):
    return request.param


@pytest.fixture(params=COMPILED)
def compiled(request):
    return request.param


def check(implementation, shape, dtype, bias=True, change=lambda x: x):
    acts, indices, W_dec, b_dec, grad = sample(shape, dtype)
    inputs = [acts, indices, W_dec, b_dec if bias else None]
    with running(implementation, "sparse_decode") as device:
        skip_on_gpu(dtype)
        moved = [x if x is None else change(x.to(device)) for x in inputs]
        got = [x.cpu() for x in results(ops.sparse_decode, moved, [grad])]
    with ops.use_backend("reference"):
        same_dtype = results(ops.sparse_decode, inputs, [grad])
        wide = [x.double() if x is not None and x.is_floating_point() else x for x in inputs]
        exact = results(ops.sparse_decode, wide, [grad])
    no_worse(got, same_dtype, exact, dtype)


def test_by_hand(implementation):
    with running(implementation, "sparse_decode") as device:
        acts = torch.tensor([[2.0, 1], [0, 3]], device=device, requires_grad=True)
        indices = torch.tensor([[2, 0], [0, 0]], device=device)
        W_dec = torch.tensor([[[1.0, 10]], [[5, 5]], [[3, 4]]], device=device, requires_grad=True)
        out = ops.sparse_decode(acts, indices, W_dec, torch.tensor([[0.5, -1]], device=device))
        assert out.tolist() == [[[7.5, 17]], [[3.5, 29]]]
        out.backward(torch.tensor([[[1.0, 2]], [[3, 4]]], device=device))
    assert acts.grad.tolist() == [[11, 21], [43, 43]]  # of the act that is 0 too
    assert W_dec.grad.tolist() == [[[10, 14]], [[0, 0]], [[2, 4]]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients(implementation, shape, dtype):
    check(implementation, shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", WIDE_SHAPES, ids=str)
def test_values_and_gradients_across_tiles_and_chunks(compiled, shape, dtype):
    check(compiled, shape, dtype)


def test_no_bias(implementation):
    check(implementation, SHAPES[3], torch.float32, bias=False)


def test_views(implementation):
    def strided(x):
        wide = x.new_zeros(*x.shape[:-1], 2 * x.shape[-1])
        wide[..., ::2] = x
        return wide[..., ::2]

    check(implementation, SHAPES[4], torch.float32, change=strided)


def test_gradient_exact(compiled):
    for shape in (SHAPES[2], SHAPES[3], (7, 3, 2, 2, 9)):
        acts, indices, W_dec, b_dec, _ = sample(shape)
        inputs = [x.requires_grad_() for x in (acts, W_dec, b_dec)]
        with running(compiled, "sparse_decode"):
            assert torch.autograd.gradcheck(
                lambda a, W, b, indices=indices: ops.sparse_decode(a, indices, W, b), inputs, atol=1e-7, rtol=1e-6
            )


def test_the_gradient_of_the_bias_keeps_its_digits_over_many_rows(compiled):
    N = 1 << 18  # added up in float32, one row after another, a thousandth of it would be lost
    b_dec = torch.zeros(1, 1, requires_grad=True)
    with running(compiled, "sparse_decode"):
        out = ops.sparse_decode(torch.ones(N, 1), torch.zeros(N, 1, dtype=torch.int64), torch.ones(1, 1, 1), b_dec)
    out.backward(torch.full_like(out, 0.1))
    torch.testing.assert_close(b_dec.grad.item(), 0.1 * N, rtol=1e-5, atol=0)


def test_the_same_for_any_number_of_threads(compiled):
    acts, indices, W_dec, b_dec, grad = sample((130, 6, 90, 3, 300), torch.float32)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5, 40):
            torch.set_num_threads(threads)
            with running(compiled, "sparse_decode"):
                found.append(results(ops.sparse_decode, [acts, indices, W_dec, b_dec], [grad]))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_nan_and_infinity_stay_with_the_rows_that_use_them(compiled):
    acts, indices, W_dec, b_dec, _ = sample((40, 3, 20, 1, 150), torch.float32)
    acts, nan, inf = acts.abs() + 1, float("nan"), float("inf")
    W_dec[3], W_dec[5] = nan, inf
    with running(compiled, "sparse_decode"):
        out = ops.sparse_decode(acts, indices, W_dec, b_dec)
    with_nan, with_inf = ((indices == latent).any(1) for latent in (3, 5))
    assert torch.equal(out.isnan().all(-1).flatten(), with_nan)
    assert torch.equal(out.isinf().all(-1).flatten(), with_inf & ~with_nan)
    acts[1] = nan
    with running(compiled, "sparse_decode"):
        assert ops.sparse_decode(acts, indices, W_dec, b_dec)[1].isnan().all()


def test_an_act_of_zero_adds_nothing(compiled):
    W_dec = torch.full((3, 1, 5), float("inf"))
    W_dec[1] = 2
    for rows in (1, 9):  # by row; by latent
        acts, indices = torch.tensor([[3.0, 0]]).repeat(rows, 1), torch.tensor([[1, 0]]).repeat(rows, 1)
        with running(compiled, "sparse_decode"):
            assert torch.equal(ops.sparse_decode(acts, indices, W_dec), torch.full((rows, 1, 5), 6.0))


@pytest.mark.parametrize("index", [4, -1, 2**40])
def test_refuses_indices_outside_the_dictionary(compiled, index):
    acts, indices, W_dec, b_dec, grad = sample((6, 4, 4, 2, 3), torch.float32)
    indices[2, 1] = index
    with running(compiled, "sparse_decode"):
        with pytest.raises(IndexError, match=rf"indices: expected 0 to L - 1 = 3; got {index}"):
            ops.sparse_decode(acts, indices, W_dec, b_dec)
        with pytest.raises(IndexError, match="indices"):
            torch.ops.groupcc.sparse_decode_backward(grad, None, acts, indices, W_dec, True, "cpp")


def test_more_than_2_to_the_31_elements(compiled):
    L, D = 70_000, 1 << 15
    W_dec = torch.empty(L, 1, D, dtype=torch.bfloat16)  # 4.6 GB of addresses; only the rows written below are there
    for latent in (0, L - 1):
        W_dec[latent] = latent % 7 + 1
    with running(compiled, "sparse_decode"):
        out = ops.sparse_decode(torch.tensor([[1.0, 2]]).bfloat16(), torch.tensor([[L - 1, 0]]), W_dec)
    assert out.unique().tolist() == [(L - 1) % 7 + 1 + 2]


def test_library_op(compiled):
    acts, indices, W_dec, b_dec, grad = sample((6, 2, 9, 2, 5), torch.float32)
    leaves = [x.requires_grad_() for x in (acts, W_dec, b_dec)]
    with running(compiled, "sparse_decode"):
        torch.library.opcheck(
            torch.ops.groupcc.sparse_decode.default, (leaves[0], indices, leaves[1], leaves[2], "cpp")
        )
        transposed = acts.detach().t().contiguous().t()
        for latents, scale, need_bias in ((acts.detach(), None, True), (transposed, torch.ones(2), False)):
            detached = (grad, scale, latents, indices, W_dec.detach(), need_bias, "cpp")
            torch.library.opcheck(torch.ops.groupcc.sparse_decode_backward.default, detached)


def test_compiles(implementation):
    acts, indices, W_dec, b_dec, grad = sample((6, 2, 9, 2, 5), torch.float32)
    with running(implementation, "sparse_decode") as device:
        inputs = [x.to(device) for x in (acts, indices, W_dec, b_dec)]
        compiled = torch.compile(ops.sparse_decode, fullgraph=True, backend="aot_eager")
        eager = results(ops.sparse_decode, inputs, [grad])
        for a, b in zip(results(compiled, inputs, [grad]), eager, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS[1:])
def test_no_gradient_of_a_bias_that_needs_none(implementation):
    acts, indices, W_dec, _, grad = sample(SHAPES[5], torch.float32)
    backend = implementation.partition("-")[0]
    with running(implementation, "sparse_decode") as device:
        args = [None if x is None else x.to(device) for x in (grad, torch.ones(3), acts, indices, W_dec)]
        *with_bias, d_b_dec = torch.ops.groupcc.sparse_decode_backward(*args, True, backend)
        *without, none = torch.ops.groupcc.sparse_decode_backward(*args, False, backend)
    assert d_b_dec.shape == (3, 11)
    assert none.numel() == 0
    assert all(torch.equal(a, b) for a, b in zip(with_bias, without, strict=True))
