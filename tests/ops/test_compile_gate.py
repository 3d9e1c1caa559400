"""The compile gate: every Triton kernel builds for sm_80, sm_90 and gfx942 without spills, no GPU needed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import groupcc

pytest.importorskip("triton")

from groupcc.ops.gpu import Build
from helpers.compile_gate import GPUS, Row, problem

GATE = Path(__file__).parents[1] / "helpers" / "compile_gate.py"

# One warp holds 32,768 numbers at once: more than 255 registers for each of 32 threads, or 512 for each of 64.
SPILLING = """
import triton
import triton.language as tl
from groupcc.ops.gpu import Build

@triton.jit
def greedy(x, out, BLOCK: tl.constexpr):
    offsets = tl.arange(0, BLOCK)
    values = tl.load(x + offsets)
    tl.store(out + offsets, values * tl.sum(values))

def builds():
    signature = {"x": "*fp32", "out": "*fp32", "BLOCK": "constexpr"}
    return [Build("greedy", greedy, signature, {"BLOCK": 32768}, num_warps=1)]
"""
FORGOTTEN = """
import triton
import triton.language as tl

@triton.jit
def double(x):
    return 2 * x

@triton.jit
def kernel(x):
    tl.store(x, double(tl.load(x)))

def builds():
    return []
"""

ONE = """
import triton
import triton.language as tl
from groupcc.ops.gpu import Build

@triton.jit
def fill(x, n, m):
    tl.store(x, n.to(tl.int64) + m)

def builds():
    return [Build("fill", fill, {"x": "*i64", "n": "i32", "m": "i32"}, {})]
"""


def gate(tmp_path, *args):
    """Runs the gate, whose process must have Triton's compiler rather than the interpreter of this one."""
    report = tmp_path / "gate.json"
    done = subprocess.run(
        [sys.executable, str(GATE), "--json", str(report), *args],
        env={**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(Path(groupcc.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)  # the table: pytest -rP shows it
    assert report.exists(), done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert done.returncode == bool(found["problems"])
    return found


def test_every_kernel_compiles_everywhere_without_spills(tmp_path):
    found = gate(tmp_path)
    assert not found["problems"]
    assert {row["target"] for row in found["rows"]} in (set(), {"sm_80", "sm_90", "gfx942"})


def test_the_gate_stops_a_kernel_that_spills(tmp_path):
    module = tmp_path / "spilling.py"
    module.write_text(SPILLING, encoding="utf-8")
    problems = gate(tmp_path, str(module))["problems"]
    assert [line.split()[3] for line in problems if " spills " in line] == ["sm_80", "sm_90", "gfx942"]


def test_the_gate_stops_a_kernel_without_a_build(tmp_path):
    module = tmp_path / "forgotten.py"
    module.write_text(FORGOTTEN, encoding="utf-8")
    (problem,) = gate(tmp_path, str(module))["problems"]
    assert problem.endswith("builds() has no build of kernel for sm_80, sm_90, gfx942")


def test_the_gate_stops_a_kernel_that_takes_no_one(tmp_path):
    module = tmp_path / "one.py"
    module.write_text(ONE, encoding="utf-8")
    (problem,) = gate(tmp_path, str(module))["problems"]
    assert "does not compile: ValueError: with n = 1: " in problem
    assert "has no attribute 'to'" in problem


@pytest.mark.parametrize("target", GPUS)
def test_the_gate_stops_too_much_shared_memory_and_missing_tensor_cores(target):
    limit = GPUS[target][1]
    build = Build("product", None, {}, {}, tensor_cores=True)
    assert problem(Row("module", "product", target, shared=limit, tensor_ops=1), build) is None
    assert "shared memory" in problem(Row("module", "product", target, shared=limit + 1, tensor_ops=1), build)
    assert problem(Row("module", "product", target), build) == "has no tensor-core instruction"
