"""Sums of rows by latent, and products of rows with active latents' rows: what the decoders' gradients share."""

import pytest
import torch

pytest.importorskip("triton")

from groupcc.ops import latent_sum as latent_sum_module
from groupcc.ops.latent_sum import latent_sum, too_wide
from groupcc.ops.row_dots import row_dots
from helpers import interpreter  # noqa: F401  (rounds to bfloat16 as GPUs do)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def sample(N, K, L, M, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(N, K, generator=generator).clamp(min=-0.5).to(DEVICE, dtype)
    values[values < 0] = 0
    indices = torch.randint(L, (N, K), generator=generator).to(DEVICE)
    rows = torch.randn(N, M, generator=generator).to(DEVICE, dtype)
    scale = torch.rand(M, generator=generator).to(DEVICE, torch.promote_types(dtype, torch.float32))
    return values, indices, rows, scale


def expected(values, indices, rows, L):
    values, rows = values.double(), rows.double()
    scaled = (values[:, :, None] * rows[:, None]).flatten(0, 1)
    sums = torch.zeros(L, rows.shape[1], dtype=torch.float64, device=DEVICE)
    totals = torch.zeros(L, dtype=torch.float64, device=DEVICE)
    return sums.index_add_(0, indices.flatten(), scaled), totals.index_add_(0, indices.flatten(), values.flatten())


@pytest.mark.parametrize("segment", [1, 3, 1000])
@pytest.mark.parametrize(("N", "K", "L", "M"), [(7, 3, 5, 6), (4, 5, 2, 70), (1, 1, 1, 1), (0, 2, 3, 4), (5, 2, 40, 3)])
def test_sums_by_latent_in_segments_of_any_length(monkeypatch, segment, N, K, L, M):
    monkeypatch.setattr(latent_sum_module, "_SEGMENT", segment)
    monkeypatch.setattr(latent_sum_module, "_SEGMENTS", 10**9)
    values, indices, rows, scale = sample(N, K, L, M, torch.float32 if DEVICE == "cuda" else torch.float64)
    sums, totals = expected(values, indices, rows, L)
    close = {"rtol": 1e-5, "atol": 1e-5} if DEVICE == "cuda" else {"rtol": 1e-12, "atol": 1e-12}
    found = latent_sum(values, indices, rows, L, scale=scale, columns=True, value_sums=True)
    torch.testing.assert_close(found.rows.double(), sums * scale, **close)
    torch.testing.assert_close(found.columns.double(), rows.double().sum(0) * scale, **close)
    torch.testing.assert_close(found.values.double(), totals, **close)
    plain = latent_sum(values, indices, rows, L)
    assert plain.columns is plain.values is None
    torch.testing.assert_close(plain.rows.double(), sums, **close)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_kept_in_fp32(dtype):
    values, indices, rows, _ = sample(24, 4, 3, 5, dtype)
    sums, totals = expected(values, indices, rows, 3)
    found = latent_sum(values, indices, rows, 3, columns=True, value_sums=True)
    pairs = [(found.rows, sums), (found.columns, rows.double().sum(0)), (found.values, totals)]
    for got, exact in pairs:
        assert got.dtype == dtype
        # One rounding to dtype, and fp32's in the sums.
        torch.testing.assert_close(got.double(), exact, rtol=torch.finfo(dtype).eps * 0.51, atol=2e-5)


def test_the_same_sums_every_time_and_zeros_for_silent_latents():
    values, indices, rows, _ = sample(40, 3, 4, 20, torch.float32)
    indices[indices == 2] = 1
    first, second = (latent_sum(values, indices, rows, 4).rows for _ in range(2))
    assert torch.equal(first, second)
    assert not first[2].any()


def test_entries_of_value_zero_are_left_out():
    values, indices, rows, _ = sample(4, 2, 3, 5, torch.float32)
    values[1] = 0
    rows[1] = float("nan")
    assert latent_sum(values, indices, rows, 3).rows.isfinite().all()


@pytest.mark.parametrize(
    ("N", "K", "L", "M"), [(5, 3, 4, 7), (2, 20, 6, 3), (3, 2, 3, 300), (0, 2, 3, 4), (1, 1, 1, 1)]
)
@pytest.mark.parametrize("slab", [64, 1 << 20])
def test_products_of_rows_with_active_rows(monkeypatch, slab, N, K, L, M):
    import groupcc.ops.row_dots as row_dots_module

    monkeypatch.setattr(row_dots_module, "_L2_BYTES", slab * L * 8)
    dtype = torch.float32 if DEVICE == "cuda" else torch.float64
    _, indices, rows, scale = sample(N, K, L, M, dtype)
    table = sample(L, 1, 1, M, dtype, seed=1)[2]
    products = torch.einsum("nm,nkm->nk", rows.double(), table.double()[indices])
    close = {"rtol": 1e-5, "atol": 1e-4} if DEVICE == "cuda" else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(row_dots(rows, indices, table).double(), products, **close)
    products = torch.einsum("nm,nkm->nk", (rows * scale).double(), table.double()[indices])
    torch.testing.assert_close(row_dots(rows, indices, table, scale).double(), products, **close)


def test_rows_too_wide_for_the_grid_are_refused():
    for dtype in (torch.float32, torch.bfloat16):  # whose partial sums are float32
        one = torch.empty(1, dtype=dtype, device="meta")
        assert too_wide(one.expand(2, 65535 * 128)) is None
        assert too_wide(one.expand(2, 65535 * 128 + 1)) is not None


def test_every_tile_sums_in_one_order():
    assert len({config.kwargs["BLOCK_E"] for config in latent_sum_module.TILES}) == 1
