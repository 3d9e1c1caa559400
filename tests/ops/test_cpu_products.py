"""cpu_products.bmm: oneDNN's results are torch.bmm's, whatever the strides, and it runs only where it pays."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("groupcc._C")

from groupcc.ops._cpp import products as cpu_products

# B, M, K, N: the irreps of D4, D8 and D32 at small batches (B irreps of size d: [d·N, d·D] by [d·D, d·L]), by one row.
SHAPES = [(4, 64, 96, 200), (1, 1, 1024, 1100), (15, 130, 66, 190), (2, 1200, 900, 1), (3, 257, 129, 33)]


@pytest.fixture
def onednn(monkeypatch):
    """Has oneDNN taken whatever the CPU; a list of the sizes it was given."""
    try:
        cpu_products.onednn_product(torch.ones(2, 3), torch.ones(4, 3))
    except (AttributeError, RuntimeError) as error:
        pytest.skip(f"no oneDNN here: {error}")
    calls = []
    real = cpu_products.onednn_product

    def counted(a, b):
        calls.append((*a.shape, b.shape[0]))
        return real(a, b)

    monkeypatch.setattr(cpu_products, "onednn_product", counted)
    monkeypatch.setattr(cpu_products, "_onednn_is_faster", lambda: True)
    return calls


def operands(B, M, K, N, layout, seed=0):
    """a [B, M, K] and b [B, K, N] in float64 and, of these strides, in float32."""
    generator = torch.Generator().manual_seed(seed)

    def made(rows, columns, transposed):
        shape = (B, columns, rows) if transposed else (B, rows, columns)
        tensor = torch.randn(2, *shape, generator=generator)[1]  # begins in the middle of its memory
        return tensor.transpose(1, 2) if transposed else tensor

    a, b = made(M, K, layout[0] == "t"), made(K, N, layout[1] == "t")
    return a, b


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_as_exact_as_torch_bmm(onednn, shape, layout):
    """Within the error that sums of K products in float32 have, whatever their order."""
    B, M, K, N = shape
    a, b = operands(*shape, layout)
    exact = a.double() @ b.double()
    bound = 2 * K * torch.finfo(torch.float32).eps * (a.double().abs() @ b.double().abs())
    out = torch.full((B, M, N), torch.nan)
    cpu_products.bmm(a, b, out)
    paid = M * K * N >= cpu_products._LEAST_MULTIPLICATIONS
    assert onednn == ([(M, K, N)] * B if paid else [])
    assert bool(((out - exact).abs() <= bound).all())
    # And on the whole no further off than PyTorch's.
    theirs = (torch.bmm(a, b) - exact).square().mean().sqrt()
    assert (out - exact).square().mean().sqrt() <= 2 * theirs + torch.finfo(torch.float32).tiny


def test_other_strides(onednn):
    """Of a slice and of what is expanded, into a slice."""
    wide = torch.randn(2, 140, 300, generator=torch.Generator().manual_seed(0))
    a, b = wide[:, 3:131, 7:263:2], wide[:1, :128, 100:228].expand(2, -1, -1)
    holds = torch.zeros(4, 130, 128)
    cpu_products.bmm(a, b, holds[1:3, 1:129])
    assert onednn == [(128, 128, 128)] * 2
    torch.testing.assert_close(holds[1:3, 1:129], torch.bmm(a, b), rtol=0, atol=1e-4)
    assert not holds[[0, 3]].any()
    assert not holds[:, [0, 129]].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_float32_alone(onednn, dtype):
    a, b = (tensor.to(dtype) for tensor in operands(2, 128, 128, 128, "nt"))
    out = a.new_empty(2, 128, 128)
    cpu_products.bmm(a, b, out)
    assert onednn == []
    assert torch.equal(out, torch.bmm(a, b))


def test_small_products_are_left_to_pytorch(onednn):
    for K, taken in ((127, False), (128, True)):
        a, b = operands(1, 64, K, 128, "nn")
        out = torch.empty(1, 64, 128)
        cpu_products.bmm(a, b, out)
        assert bool(onednn) == taken


def test_none_of_nothing(onednn):
    for shape in ((0, 300, 200, 100), (3, 0, 5, 7), (3, 5, 0, 7)):
        a, b = operands(*shape, "nt")
        out = torch.full((shape[0], shape[1], shape[3]), torch.nan)
        cpu_products.bmm(a, b, out)
        assert torch.equal(out, torch.zeros_like(out))


@pytest.fixture
def asked_anew():
    cpu_products._onednn_is_faster.cache_clear()
    yield
    cpu_products._onednn_is_faster.cache_clear()


@pytest.fixture
def an_amd(monkeypatch, asked_anew):
    """A CPU with AVX-512 not made by Intel, with MKL and a PyTorch that has the operator."""

    class Extension:
        @staticmethod
        def cpu_is_intel():
            return False

        @staticmethod
        def available_isas():
            return ["baseline", "avx2", "avx512"]

    monkeypatch.setattr(cpu_products, "_C", Extension)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(cpu_products, "onednn_product", lambda a, b: a @ b.t())
    return Extension


def test_where_onednn_is_faster(an_amd):
    assert cpu_products._onednn_is_faster()


@pytest.mark.parametrize("lacking", ["amd", "avx512", "mkl", "operator", "schema"])
def test_where_it_is_not(an_amd, monkeypatch, lacking):
    def raises(kind):
        def onednn(a, b):
            raise kind("not here")

        return onednn

    if lacking == "amd":
        monkeypatch.setattr(an_amd, "cpu_is_intel", lambda: True)
    elif lacking == "avx512":
        monkeypatch.setattr(an_amd, "available_isas", lambda: ["baseline", "avx2"])
    elif lacking == "mkl":
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    else:
        kind = AttributeError if lacking == "operator" else RuntimeError
        monkeypatch.setattr(cpu_products, "onednn_product", raises(kind))
    assert not cpu_products._onednn_is_faster()
    a, b = operands(1, 128, 128, 128, "nt")
    out = torch.empty(1, 128, 128)
    cpu_products.bmm(a, b, out)
    assert torch.equal(out, torch.bmm(a, b))


def test_the_answer_is_not_that_of_a_default(an_amd, monkeypatch):
    """It is kept: asked first under another default dtype or device it is the same."""
    given = []
    monkeypatch.setattr(cpu_products, "onednn_product", lambda a, b: given.extend((a, b)))
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.device("meta"):
            assert cpu_products._onednn_is_faster()
    finally:
        torch.set_default_dtype(before)
    assert all(tensor.dtype == torch.float32 and tensor.device.type == "cpu" for tensor in given)


def test_who_made_the_cpu():
    from groupcc import _C

    information = Path("/proc/cpuinfo")
    if not information.exists() or "vendor_id" not in information.read_text():
        pytest.skip("the system does not say who made the CPU")
    if "avx512" not in _C.available_isas():
        pytest.skip("only asked where there is AVX-512")
    intel = "GenuineIntel" in information.read_text()
    assert _C.cpu_is_intel() == intel
