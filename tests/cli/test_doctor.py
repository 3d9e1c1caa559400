"""groupcc doctor: which kernels run here, and why others don't."""

import os
import subprocess
import sys

import pytest
import torch

from groupcc import ops
from groupcc.cli import main
from groupcc.cli.doctor import diagnosis


def diagnosis_with(prelude="", **environment):
    """What a fresh process without the tests' settings says."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "GROUPCC_"))}
    code = f"import sys, torch\n{prelude}\nfrom groupcc.cli import main\nmain(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**variables, **environment}, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def line_of(text, name):
    """The last line of that name: backends stand below packages."""
    return [line for line in text.splitlines() if line.startswith(f"  {name:14} ")][-1]


def test_versions_and_machine(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__.split("+")[0] in printed
    assert f"{torch.get_num_threads()} threads" in printed


def test_a_wrong_backend_is_named(capsys, monkeypatch):
    monkeypatch.setenv("GROUPCC_BACKEND", "cuda")
    assert main(["doctor"]) == 0
    assert "now: none, GROUPCC_BACKEND: expected one of auto" in capsys.readouterr().out


def test_the_reference_runs_every_op():
    line = line_of(diagnosis(), "reference")
    assert line.split("on: ")[1].split(", ") == list(ops.registered_ops())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_triton_that_imports_is_still_off_without_a_gpu():
    pytest.importorskip("triton")
    printed = diagnosis_with()
    assert " off: " in line_of(printed, "triton")
    assert "its kernels need a CUDA GPU, and there is none" in printed
    line = line_of(diagnosis_with(TRITON_INTERPRET="1"), "triton")
    assert "on: " in line


def test_without_triton_and_without_the_extension():
    printed = diagnosis_with("sys.modules['triton'] = sys.modules['groupcc._C'] = None")
    assert "off: " in line_of(printed, "triton")
    assert "triton" in line_of(printed, "triton").split("off: ")[1]
    assert "off: " in line_of(printed, "cpp")
    assert "the extension groupcc._C cannot be loaded" in printed
    assert "the pure-Python package works on the reference path" in line_of(printed, "groupcc._C")


def test_the_extension_says_which_kernels_and_whose_threads():
    _C = pytest.importorskip("groupcc._C")
    for isa in _C.available_isas():
        line = line_of(diagnosis_with(GROUPCC_ISA=isa), "kernels for")
        assert line.split("kernels for")[1].split(";")[0].strip() == isa
    printed = diagnosis_with("from groupcc import _C; _C.set_cache_limit(3_000_000_000)")
    assert "keeps up to 3.0 GB of freed outputs" in line_of(printed, "memory")
    if _C.openmp and sys.platform == "linux":
        assert "PyTorch's own pool" in line_of(printed, "threads")


def test_two_openmp_runtimes_are_named(monkeypatch):
    pytest.importorskip("groupcc._C")
    monkeypatch.setattr("groupcc.cli.doctor._openmp_libraries", lambda: ["/a/libgomp.so.1", "/b/libiomp5.so"])
    assert "2 of its libraries are loaded and their threads compete: /a/lib" in line_of(diagnosis(), "threads")


def test_an_op_whose_kernel_does_not_load_is_named_beside_those_that_do(monkeypatch):
    broken = ops.registered_ops()["sparse_decode"]
    if len(broken.available()) < 2 or "cpp" not in broken.backends:
        pytest.skip("needs the extension")
    monkeypatch.setitem(broken._modules, "cpp", "its file is gone")
    printed = diagnosis()
    assert "off for sparse_decode: its file is gone" in printed
    assert "sparse_decode" not in line_of(printed, "cpp")
