"""The names private to PyTorch that groupcc needs. groupcc/ops/_torch_private.py says what each one is for."""

import re
from pathlib import Path

import pytest
import torch

import groupcc
from groupcc.ops import _torch_private

ROOT = Path(groupcc.__file__).parent
# A name that starts with an underscore, looked up in torch or in one of its operators.
PRIVATE = re.compile(r"torch(?:\.\w+)*\.(_\w+)|[\"'](_is_\w+|torch\._\w+(?:\.\w+)*|_dynamo_\w+)[\"']|\.(_dynamo_\w+)")
NEEDED = {"_dynamo_marked_constant", "torch._dynamo.variables", "_linear_pointwise"}
NEEDED |= {"_is_avx512_bf16_supported", "_is_amx_tile_supported", "_is_mkldnn_bf16_supported"}


def private_names(path):
    text = path.read_text(encoding="utf-8")
    return {next(filter(None, groups)) for groups in PRIVATE.findall(text)}


def test_one_file_names_them_all():
    assert private_names(ROOT / "ops" / "_torch_private.py") == NEEDED
    for path in (ROOT / "ops").rglob("*.py"):
        assert path.name == "_torch_private.py" or not private_names(path), path


def test_dynamo_takes_a_decorated_function_for_a_constant():
    calls = []

    @_torch_private.read_once_when_compiled
    def reading():
        calls.append(1)
        return open("/dev/null").read() or 3

    compiled = torch.compile(lambda x: x * reading(), fullgraph=True, backend="eager")
    assert compiled(torch.ones(2)).tolist() == compiled(torch.ones(2)).tolist() == [3.0, 3.0]
    assert len(calls) == 1


def test_whether_dynamo_reads_context_variables():
    import torch._dynamo.variables as variables

    assert _torch_private.dynamo_reads_context_variables() == hasattr(variables, "ContextVarVariable")


def test_onednn_multiplies():
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    a, b = torch.randn(5, 3), torch.randn(4, 3)
    torch.testing.assert_close(_torch_private.onednn_product(a, b), a @ b.t())


def test_whether_bfloat16_is_fast():
    information = Path("/proc/cpuinfo")
    if not information.exists() or not torch.backends.mkldnn.is_available():
        pytest.skip("the system does not say what the CPU has")
    has = set(re.search(r"^flags\s*:(.*)$", information.read_text(), re.MULTILINE)[1].split())
    assert _torch_private.fast_bfloat16() == bool({"avx512_bf16", "amx_tile"} & has)
