"""orbit_encode in Triton: fused or materialised by L, more rows and latents than a tile, materialised in blocks."""

import logging

import pytest
import torch

from groupcc import ops
from groupcc.ops import backend
from groupcc.ops.cost import LATENTS_A_TILE, fused_gather
from helpers.backends import running
from helpers.gather_cases import some_points


@pytest.fixture
def device():
    with running("triton", "orbit_encode") as device:
        yield device


@pytest.mark.parametrize(("dtype", "tile"), [(torch.bfloat16, 256), (torch.float16, 256), (torch.float32, 64)])
def test_fused_up_to_the_tiles_that_the_cost_model_gives(dtype, tile):
    assert LATENTS_A_TILE[dtype.itemsize] == tile
    for taps, tiles in ((4, 2), (9, 1)):
        # t·T bytes out of L2, or T and t, and two of memory at twice the price.
        assert tiles * taps <= taps + tiles + 4 < (tiles + 1) * taps - 1
        assert fused_gather(tiles * tile, taps, dtype)
        assert not fused_gather(tiles * tile + 1, taps, dtype)


def values_and_gradients(device, dtype, B, G, P, D, L, interpolation):
    generator = torch.Generator().manual_seed(L)
    maps = torch.randn(B, G, 6, 6, D, generator=generator).to(device, dtype).requires_grad_()
    W_enc = (torch.randn(L, G, D, generator=generator) / D**0.5).to(device, dtype).permute(1, 2, 0).requires_grad_()
    b_enc = torch.randn(L, generator=generator).to(device, dtype).requires_grad_()
    out = ops.orbit_encode(maps, some_points(G, P, 6, 6), W_enc, b_enc, interpolation, True)
    d_out = torch.randn(B * P, L, generator=generator).to(device, dtype)
    return [out.detach(), *torch.autograd.grad(out, (maps, W_enc, b_enc), d_out)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_both_forms_with_many_tiles_and_blocks(device, dtype, monkeypatch):
    sizes = (5, 2, 31, 35, 260 if dtype == torch.bfloat16 else 70, "bilinear")  # 155 rows
    with ops.use_backend("reference"):
        expected = values_and_gradients(device, dtype, *sizes)
    kernels = ops.registered_ops()["orbit_encode"].load("triton")
    monkeypatch.setattr(kernels, "BLOCK_BYTES", 4000)
    monkeypatch.setattr(kernels, "BLOCK_ROWS", 100)
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 2e-5}
    for fused in (True, False):
        monkeypatch.setattr(kernels, "fused_gather", lambda *_, fused=fused: fused)
        for got, wanted in zip(values_and_gradients(device, dtype, *sizes), expected, strict=True):
            torch.testing.assert_close(got.float(), wanted.float(), **tolerance)


def test_the_choice_is_logged_once(device, monkeypatch, caplog):
    monkeypatch.setattr(backend, "_logged", set())
    with caplog.at_level(logging.INFO, "groupcc.ops"):
        for L in (3, 3, 200):
            values_and_gradients(device, torch.float32, 1, 1, 1, 2, L, "bilinear")
    assert [record.message.split(",")[0] for record in caplog.records] == [
        "orbit_encode: for 3 latents the gather is part of the product",
        "orbit_encode: for 200 latents the gather is made first",
    ]
