"""What auto takes by cost: dense or sparse decode, from the sizes, logged once."""

import logging

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from groupcc import ops
from groupcc.ops import _dispatch
from groupcc.ops._dense_decode import dense_up_to

CUDA = torch.device("cuda")


@pytest.fixture(params=["allow_tf32", "fp32_precision"])
def set_tf32(request):
    """Turns TF32 on or off by PyTorch's older or newer switch."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.fp32_precision
    yield lambda on: setattr(matmul, request.param, on if request.param == "allow_tf32" else "tf32" if on else "ieee")
    matmul.allow_tf32 = False  # or the two would disagree, which PyTorch makes an error
    matmul.fp32_precision = before


def test_the_gpu_figure_is_the_data_sheets_arithmetic(set_tf32):
    assert dense_up_to(CUDA, torch.bfloat16) == dense_up_to(CUDA, torch.float16) == int(989e12 / 3.35e12)
    set_tf32(False)
    assert dense_up_to(CUDA, torch.float32) == int(2 * 67e12 / 3.35e12)
    set_tf32(True)
    assert dense_up_to(CUDA, torch.float32) == int(2 * 495e12 / 3.35e12)
    assert dense_up_to(torch.device("cpu"), torch.float32) == 4


def test_a_compiled_program_may_ask(set_tf32):
    set_tf32(True)
    compiled = torch.compile(lambda x: x * dense_up_to(CUDA, x.dtype), fullgraph=True, backend="eager")
    assert compiled(torch.ones(())) == int(2 * 495e12 / 3.35e12)


@pytest.mark.parametrize("name", ["sparse_decode", "decode_loss"])
def test_a_choice_on_a_gpu_is_kept_for_one_setting_of_tf32(set_tf32, name):
    op, read = ops.registered_ops()[name], []
    for device in ("cuda", "cpu"):
        for on in (True, False):
            set_tf32(on)
            with FakeTensorMode():
                tensors = [torch.empty(2, 3, 4, device=device)] * len(op.operator.record._fields)
                read.append(op.also_reads(op.operator.record(*tensors)))
    assert read == [True, False, False, False]


@pytest.mark.parametrize(("L", "taken"), [(4096, "reference"), (16384, "triton")])
@pytest.mark.parametrize("name", ["sparse_decode", "decode_loss"])
def test_auto_decodes_densely_or_sparsely_by_latents_per_active_one(monkeypatch, caplog, name, L, taken):
    pytest.importorskip("triton")
    monkeypatch.setattr(_dispatch, "_logged", set())
    op = ops.registered_ops()[name]
    kept = list(op._choices)
    with FakeTensorMode(), caplog.at_level(logging.INFO, "groupcc.ops"), ops.use_backend("auto"):
        acts = torch.empty(8, 32, dtype=torch.bfloat16, device="cuda")
        W_dec, b_dec = acts.new_empty(L, 2, 8), acts.new_empty(2, 8)
        rest = [acts.new_empty(8, 2, 8), None, ""] if name == "decode_loss" else []
        for _ in range(2):
            indices = acts.new_empty(8, 32, dtype=torch.int64)
            chosen = op.choose(op.operator.record(acts, indices, W_dec, b_dec, *rest))
            assert chosen == taken
    assert list(op._choices) == kept  # what PyTorch traces is not kept
    (record,) = caplog.records
    assert f"{name}: auto takes {taken}" in record.message
