"""The reference ops against hand-worked tables, brute force and fp64 gradcheck."""

from typing import NamedTuple

import pytest
import torch

from groupcc import ops
from groupcc.errors import ArgumentError, BackendError
from groupcc.ops._declare import Op

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


def test_bad_arguments():
    with pytest.raises(ArgumentError, match="indices"):
        ops.sparse_decode(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(4, 1, 1))
    with pytest.raises(ArgumentError, match="W_dec"):
        ops.sparse_decode(torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(4, 1, 1).half())


class Args(NamedTuple):
    x: torch.Tensor


def double(compute, modules, monkeypatch):
    """An op that doubles, of these modules of kernels, unknown to torch.library and to the other tests."""

    class Double(Op):
        name = "double"
        backends = tuple(modules)
        reference = staticmethod(compute)

    monkeypatch.setattr("groupcc.ops._dispatch._ops", {})
    monkeypatch.setattr("groupcc.ops._declare.Operator", lambda *_: lambda args, backend: (backend, 2 * args.x))
    op = Double()
    op._modules = dict(modules)
    return op


def test_a_named_backend_runs_or_raises(monkeypatch):
    op = double(lambda args: 2 * args.x, {"cpp": "no compiler"}, monkeypatch)
    one = Args(torch.ones(()))
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
        def unsupported(args):
            return None if args.x.dtype == torch.float32 else f"no {args.x.dtype}"

    modules = {"cpp": Kernels, "triton": "no module named triton"}
    op = double(lambda args: ("reference", 2 * args.x), modules, monkeypatch)
    one, wide = Args(torch.ones(())), Args(torch.ones((), dtype=torch.float64))
    with ops.use_backend("auto"):
        assert op(one) == ("cpp", 2)
        assert op(wide) == ("reference", 2)
    with ops.use_backend("reference"):
        assert op(one) == ("reference", 2)
    with ops.use_backend("cpp"), pytest.raises(BackendError, match=r"double on cpp: no torch.float64"):
        op(wide)
    with ops.use_backend("triton"), pytest.raises(BackendError, match="double: triton is off: no module named triton"):
        op(one)
    assert op.available() == ["reference", "cpp"]


def test_a_choice_is_made_once_for_arguments_alike(monkeypatch):
    asked, setting = [], [1]

    class Kernels:
        @staticmethod
        def unsupported(args):
            asked.append(args.x.dtype)
            return None if args.x.dtype == torch.float32 else f"no {args.x.dtype}"

    op = double(lambda args: ("reference", 2 * args.x), {"cpp": Kernels}, monkeypatch)
    one, wide = Args(torch.ones(3)), Args(torch.ones(3, dtype=torch.float64))
    for _ in range(3):
        assert op.choose(one) == "cpp"
        assert op.choose(wide) == "reference"
    assert asked == [torch.float32, torch.float64]
    # Another shape, another backend in force, a gradient, a parameter of the same shape with one, and another setting.
    for args, n_asked in ((Args(torch.ones(4)), 3), (Args(torch.ones(3, requires_grad=True)), 4), (one, 4)):
        assert op.choose(args) == "cpp"
        assert len(asked) == n_asked
    op.choose(Args(torch.nn.Parameter(torch.ones(3))))
    assert len(asked) == 4
    with ops.use_backend("cpp"):
        for _ in range(2):  # errors are not kept
            with pytest.raises(BackendError, match=r"no torch\.float64"):
                op.choose(wide)
        assert op.choose(one) == "cpp"
    assert len(asked) == 7
    monkeypatch.setattr(op, "also_reads", lambda args: setting[0], raising=False)
    for setting[0] in (1, 1, 2, 2):
        op.choose(one)
    assert len(asked) == 9
    op.forget()
    op.choose(one)
    assert len(asked) == 10


def test_few_choices_are_kept(monkeypatch):
    class Kernels:
        @staticmethod
        def unsupported(args):
            return None

    op = double(lambda args: args.x, {"cpp": Kernels}, monkeypatch)
    for n in range(600):
        op.choose(Args(torch.empty(n)))
        assert 1 <= len(op._choices) <= 256
