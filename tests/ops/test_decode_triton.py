"""What only the Triton decoders have: tiles of columns and of blocks, long segments, offsets beyond 2^31 elements."""

import pytest
import torch

pytest.importorskip("triton")

from groupcc import ops
from groupcc.ops import latent_sum as latent_sum_module
from groupcc.ops.decode_loss.triton import _block_D
from groupcc.ops.latent_sum import latent_sum
from groupcc.ops.row_dots import row_dots
from helpers.backends import running

DECODERS = ("sparse_decode", "decode_loss")


def sample(N, K, L, G, D, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    acts = torch.rand(N, K, generator=generator)
    acts[acts < 0.2] = 0
    indices = torch.randint(L, (N, K), generator=generator)
    rest = (torch.randn(*shape, generator=generator) for shape in [(L, G, D), (G, D), (N, G, D)])
    return [x.to(device) for x in (acts, indices, *rest)]


def gradients(outputs, inputs):
    grads = torch.autograd.grad(sum((x * (i + 1)).sum() for i, x in enumerate(outputs)), inputs)
    return [x.detach().double() for x in (*outputs, *grads)]


def both(op, name, *args):
    """Outputs and gradients of an op in Triton, float32, and of its reference in float64."""
    found = []
    for implementation, dtype in [("triton", torch.float32), ("reference", torch.float64)]:
        inputs = [x.to(dtype).requires_grad_() if x.is_floating_point() else x for x in args]
        with running(implementation, name):
            outputs = op(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        found.append(gradients(outputs, [x for x in inputs if x.requires_grad]))
    return zip(*found, strict=True)


@pytest.mark.parametrize(("G", "D"), [(2, 300), (3, 171), (1, 513), (40, 7)])
def test_decode_across_tiles_of_columns(G, D):
    with running("triton", "sparse_decode") as device:
        acts, indices, W_dec, b_dec, _ = sample(3, 11, 5, G, D, device)
    for got, exact in both(ops.sparse_decode, "sparse_decode", acts, indices, W_dec, b_dec):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(("G", "D"), [(3, 300), (2, 130), (20, 40), (70, 3), (1, 257), (33, 1)])
def test_loss_of_each_block_across_tiles(G, D):
    with running("triton", "decode_loss") as device:
        args = sample(3, 5, 4, G, D, device)
    for got, exact in both(ops.decode_loss, "decode_loss", *args):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=5e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="float64 runs in the interpreter only")
@pytest.mark.parametrize("name", DECODERS)
def test_gradcheck(name):
    with running("triton", name) as device:
        acts, indices, *rest = (x.double() for x in sample(2, 2, 3, 2, 2, device))
        inputs = [x.requires_grad_() for x in (acts + 0.3, *rest[: 2 if name == "sparse_decode" else 3])]
        op = getattr(ops, name)
        assert torch.autograd.gradcheck(lambda acts, *rest: op(acts, indices.long(), *rest), inputs)


@pytest.mark.parametrize("itemsize", [2, 4])
def test_tiles_of_blocks_waste_little(itemsize):
    for D in range(1, 2000):
        block = _block_D(D, itemsize)
        assert block & (block - 1) == 0
        assert block <= 512 // itemsize
        assert block == 32 or D < 32 or -D % block <= D // 8
    assert _block_D(480, 2) == 256


def test_long_latents_are_shared_between_programs(monkeypatch):
    monkeypatch.setattr(latent_sum_module, "_SEGMENT", 4)
    monkeypatch.setattr(latent_sum_module, "_SEGMENTS", 10**9)
    with running("triton", "decode_loss") as device:
        acts, indices, *rest = sample(30, 2, 6, 2, 5, device)
    indices[:, 0] = 3
    for got, exact in both(ops.decode_loss, "decode_loss", acts, indices, *rest):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=2e-4)


def test_an_infinite_act_is_an_infinite_loss_and_pixels_of_weight_zero_are_not_read():
    with running("triton", "decode_loss") as device:
        acts, indices, W_dec, b_dec, target = sample(2, 2, 3, 2, 5, device)
        indices[0] = torch.tensor([0, 1])
        maps = torch.full((2, 1, 3, 3, 5), float("inf"), device=device)
        maps[:, :, 1, 1] = target[:, :1]
        points = torch.ones(2, 1, 2, device=device)
        loss, _ = ops.decode_loss_maps(acts, indices, W_dec, b_dec, maps, points)
        assert loss.isfinite().all()
        acts[0, 0] = float("inf")
        assert (ops.decode_loss(acts, indices, W_dec, b_dec, target)[0] == float("inf")).all()


@pytest.mark.parametrize("interpolation", ["bilinear", "bspline"])
@pytest.mark.parametrize("S", [1, 3])
def test_the_target_gathered_from_maps(S, interpolation):
    with running("triton", "decode_loss") as device:
        args = sample(4, 2, 5, 3, 6, device)[:4]
    generator = torch.Generator().manual_seed(1)
    maps = torch.randn(2, S, 4, 5, 6, generator=generator).to(device)
    points = torch.rand(3, 2, 2, generator=generator).to(device) + 1

    def loss(acts, indices, W_dec, b_dec):
        return ops.decode_loss_maps(acts, indices, W_dec, b_dec, maps.to(W_dec.dtype), points, interpolation)

    for got, exact in both(loss, "decode_loss", *args):
        torch.testing.assert_close(got, exact, rtol=1e-5, atol=2e-5)


def test_rows_of_act_zero_are_not_read():
    with running("triton", "sparse_decode") as device:
        acts, indices, W_dec, b_dec, _ = sample(3, 3, 4, 2, 5, device)
        acts[:, 1], indices[:, 1] = 0, 3
        indices[:, ::2] %= 3
        W_dec[3] = float("nan")
        assert ops.sparse_decode(acts, indices, W_dec, b_dec).isfinite().all()


def test_offsets_beyond_2_to_the_31_elements(monkeypatch):
    """Only the last row of a table of 4 GB is touched, so no more than that is ever in memory."""
    monkeypatch.setattr(latent_sum_module, "_SEGMENT", 1 << 20)
    M, n_rows = 1 << 13, (1 << 18) + 1
    with running("triton", "sparse_decode") as device:
        table = torch.empty(n_rows, M, dtype=torch.bfloat16, device=device)
        assert (n_rows - 1) * M == 1 << 31
        last = table[-1]
        last.copy_(torch.arange(M) % 5 - 2)
        acts, indices = last.new_full((1, 1), 2), torch.full((1, 1), n_rows - 1, device=device)
        W_dec = table.view(n_rows, 2, M // 2)
        assert torch.equal(ops.sparse_decode(acts, indices, W_dec).flatten(), 2 * last)
        loss, residual = ops.decode_loss(acts, indices, W_dec, None, torch.zeros_like(W_dec[:1]))
        assert torch.equal(residual.flatten(), 2 * last)
        torch.testing.assert_close(loss.sum(), (2 * last).float().square().sum())
        assert row_dots(last[None], indices, table).item() == last.double().square().sum().to(table.dtype).item()
        values = last.new_zeros(n_rows, 1)
        values[-1] = 3
        assert torch.equal(latent_sum(values, torch.zeros_like(values).long(), table, 1).rows[0], 3 * last)


def test_a_number_of_latents_that_changes_starts_no_new_search(monkeypatch):
    """Kernels are tuned for each value of `about_L`."""
    keys = []

    class Kernel:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launched(*args, **kwargs):
                names = self.kernel.fn.arg_names
                keys.append((self.kernel, {**dict(zip(names, args, strict=False)), **kwargs}["about_L"]))
                self.kernel[grid](*args, **kwargs)

            return launched

    from groupcc.ops import row_dots as row_dots_module

    for module, name in [
        (latent_sum_module, "_latent_sum"),
        (row_dots_module, "_row_dots"),
        *((ops.registered_ops()[op].load("triton"), f"_{op.removeprefix('sparse_')}") for op in DECODERS),
        (ops.registered_ops()["topk"].load("triton"), "topk_kernel"),
    ]:
        monkeypatch.setattr(module, name, Kernel(getattr(module, name)))
    with running("triton", "sparse_decode") as device:
        for L in (9, 12, 16):
            acts, indices, W_dec, b_dec, target = sample(2, 2, L, 1, 3, device)
            W_dec.requires_grad_()
            acts.requires_grad_()
            ops.sparse_decode(acts, indices, W_dec, b_dec).sum().backward()
            ops.decode_loss(acts, indices, W_dec, b_dec, target)[0].sum().backward()
            ops.topk(W_dec[:, 0].T, 3)
    assert len({kernel for kernel, _ in keys}) == 5
    assert {about for _, about in keys} == {16}


def test_the_taps_are_kept_between_calls(monkeypatch):
    from groupcc.ops.orbit_gather import table

    made = []
    monkeypatch.setattr(table, "_tables", type(table._tables)())
    monkeypatch.setattr(table, "sampling_taps", lambda *args, of=table.sampling_taps: made.append(args) or of(*args))
    with running("triton", "decode_loss") as device:
        args = sample(4, 2, 5, 3, 6, device)[:4]
        maps, points = torch.ones(2, 3, 4, 5, 6, device=device), torch.ones(3, 2, 2)
        for _ in range(3):
            ops.decode_loss_maps(*args, maps, points)
    assert len(made) == 1


def test_more_pixels_than_int32_numbers_are_refused():
    with running("triton", "decode_loss") as device:
        acts, indices, W_dec, b_dec, _ = sample(1, 2, 3, 2, 5, device)
        maps = acts.new_empty(1).expand(1, 2, 1 << 15, 1 << 15, 5)
        module, points = ops.registered_ops()["decode_loss"].load("triton"), torch.ones(2, 1, 2)
        assert "less than 2^31" in module.unsupported(acts, indices, W_dec, b_dec, maps, points, "bilinear")
        maps = maps[:, :, 1:]
        assert module.unsupported(acts, indices, W_dec, b_dec, maps, points, "bilinear") is None
