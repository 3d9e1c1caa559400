"""Compiles every Triton kernel of groupcc.ops for GPUs that need not be here, and reads the binaries.

    TRITON_INTERPRET=0 python tests/helpers/compile_gate.py [--json FILE] [--only NAME] [MODULE ...]

A module with kernels defines `builds() -> list[Build]` (groupcc/ops/_triton/launch.py). For each build and target this
prints registers, spilled bytes, shared memory and tensor-core instructions. The exit status is 1 if a kernel does not
compile, spills, needs more shared memory than the target has, lacks the tensor-core instructions that it promises, or
is no program where integer arguments are 1, or if a kernel in the source has no build.

Under the versions of Triton in NAMED no kernel may spill. Another version brings another ptxas, which may assign
registers otherwise: there a spill is printed as a warning, and one above SPILL_BOUND is a problem.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend

import groupcc.ops
from groupcc.ops._triton.launch import TARGETS, Build

# For each target, the shared memory that one program may have (bytes), and what its tensor-core instructions are called
# in the assembly that Triton writes: PTX, which ptxas turns into HMMA and HGMMA one for one, and AMD's own.
GPUS = {
    "sm_80": (GPUTarget("cuda", 80, 32), 163 * 1024, r"\bmma\.sync\S*"),
    "sm_90": (GPUTarget("cuda", 90, 32), 227 * 1024, r"\bwgmma\.mma_async\S*"),
    "gfx942": (GPUTarget("hip", "gfx942", 64), 64 * 1024, r"\bv_mfma_\w+"),
}

NAMED = ("3.6", "3.8")
"""Versions that CI tries: Triton of PyTorch 2.10, the lowest that pyproject.toml admits, and of 2.14, the newest."""

SPILL_BOUND = 64
"""Bytes a thread (on AMD: registers) that a kernel may spill under other versions of Triton."""


@dataclass
class Row:
    """What one binary needs. `spills`: bytes of stack a thread, or registers saved elsewhere where that is none."""

    module: str
    build: str
    target: str
    registers: int = 0
    spills: int = 0
    shared: int = 0
    tensor_ops: int = 0
    tensor_op: str = ""
    error: str = ""


def kernels_in_source(path: Path) -> tuple[set[str], set[str]]:
    """Names of the functions under triton.jit in a file, and the names that such functions call."""
    jitted, called = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(d) for d in node.decorator_list):
            jitted.add(node.name)
            for call in ast.walk(node):
                if isinstance(call, ast.Call):
                    called.add(ast.unparse(call.func).rsplit(".", 1)[-1])
    return jitted, called


def package_modules() -> dict[str, Path]:
    """The modules of groupcc.ops that have Triton functions."""
    root = Path(groupcc.ops.__file__).parent
    modules = {}
    for path in sorted(root.rglob("*.py")):
        if kernels_in_source(path)[0]:
            modules[".".join(("groupcc", "ops", *path.relative_to(root).with_suffix("").parts))] = path
    return modules


def load(name: str) -> Any:
    """A module by its dotted name, or from a file."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(Path(name).stem, name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forgotten(sources: dict[str, Path], builds: dict[str, list[Build]]) -> list[str]:
    """Kernels (Triton functions that no other one calls) without a build for each target."""
    found = {name: kernels_in_source(path) for name, path in sources.items()}
    helpers = set().union(*(called for _, called in found.values()))
    problems = []
    for module, (jitted, _) in found.items():
        for kernel in sorted(jitted - helpers):
            having = {t for build in builds[module] if build.function.__name__ == kernel for t in build.targets}
            if having != set(TARGETS):
                missing = ", ".join(t for t in TARGETS if t not in having)
                problems.append(f"{module}: builds() has no build of {kernel} for {missing}")
    return problems


def options(build: Build) -> dict[str, Any]:
    """What a launch gives the compiler."""
    return {"num_warps": build.num_warps, "num_stages": build.num_stages, "enable_fp_fusion": True}


def compiled(module: str, index: int, target: str) -> Row:
    """Compiles one build of a module (from Triton's cache where it has it) and reads the binary."""
    build = load(module).builds()[index]
    row = Row(module, build.name, target)
    function = build.function
    divisible = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(build.signature.items())
        if kind.startswith("*") or name in build.divisible
    }
    gpu, _, tensor_op = GPUS[target]
    try:
        if tuple(build.signature) != tuple(function.arg_names):
            raise ValueError(f"the signature names {list(build.signature)}, the kernel {list(function.arg_names)}")
        binary = triton.compile(
            ASTSource(function, build.signature, build.constexprs, divisible),
            target=gpu,
            options=options(build),
        )
        if target == build.targets[0]:
            check_ones(build, gpu)
    except Exception as error:
        row.error = f"{type(error).__name__}: {error}"
        return row
    if gpu.backend == "cuda":
        assembly, static = binary.asm["ptx"], read_cubin(binary.asm["cubin"], row)
    else:
        assembly, static = binary.asm["amdgcn"], read_amdgcn(binary.asm["amdgcn"], row)
    row.shared = binary.metadata.shared + static
    operations = re.findall(tensor_op, assembly)
    row.tensor_ops, row.tensor_op = len(operations), min(operations, default="")
    return row


def check_ones(build: Build, gpu: GPUTarget) -> None:
    """Raises where the kernel is no program with integer arguments of 1, each alone and all together.

    A launch makes an integer of 1 a constexpr, a Python int without a tensor's methods; the interpreter does not.
    """
    backend = make_backend(gpu)
    parsed = backend.parse_options(options(build))
    integers = [name for name, kind in build.signature.items() if kind in ("i32", "i64")]
    for ones in [*([name] for name in integers), integers]:
        signature = build.signature | dict.fromkeys(ones, "constexpr")
        source = ASTSource(build.function, signature, build.constexprs | dict.fromkeys(ones, 1))
        context = ir.context()
        ir.load_dialects(context)
        backend.load_dialects(context)
        functions, modules = backend.get_codegen_implementation(parsed), backend.get_module_map()
        try:
            source.make_ir(gpu, parsed, functions, modules, context)
        except Exception as error:
            raise ValueError(f"with {' = '.join(ones)} = 1: {error}") from error


def read_cubin(cubin: bytes, row: Row) -> int:
    """Fills in registers and spills; returns the static shared memory. What a thread spills lies on its stack."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True)
    used = {key: int(value) for key, value in re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", usage.stdout)}
    row.registers, row.spills = used["REG"], used["STACK"] + used["LOCAL"]
    return used["SHARED"]


def read_amdgcn(assembly: str, row: Row) -> int:
    """Fills in registers and spills; returns the static shared memory."""
    used = {key: int(value) for key, value in re.findall(r"^\s*\.(\w+):\s+(\d+)$", assembly, re.MULTILINE)}
    row.registers = used["vgpr_count"]
    row.spills = used["private_segment_fixed_size"] or used["vgpr_spill_count"] + used["sgpr_spill_count"]
    return used["group_segment_fixed_size"]


def spill_bound(version: str) -> int:
    """Returns the largest spill that the gate lets pass under this version of Triton."""
    return 0 if ".".join(version.split(".")[:2]) in NAMED else SPILL_BOUND


def problem(row: Row, build: Build, bound: int = 0) -> str | None:
    """Returns what the gate does not let pass in this binary; of spills, those above `bound`."""
    if row.error:
        return f"does not compile: {row.error}"
    if row.spills > bound:
        return f"spills {row.spills}"
    limit = GPUS[row.target][1]
    if row.shared > limit:
        return f"needs {row.shared} bytes of shared memory, the target has {limit}"
    if build.tensor_cores and not row.tensor_ops:
        return "has no tensor-core instruction"
    return None


def run(sources: dict[str, Path], only: str, jobs: int, bound: int) -> tuple[list[Row], list[str]]:
    """Compiles every build that `only` names. Returns the binaries' rows and the problems."""
    builds = {name: list(load(name).builds()) if hasattr(load(name), "builds") else [] for name in sources}
    problems = [] if only else forgotten(sources, builds)
    tasks = [
        (module, index, target)
        for module in sources
        for index, build in enumerate(builds[module])
        for target in build.targets
        if only in f"{module} {build.name}"
    ]
    # Forked, so that workers start with torch and the kernels imported.
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as pool:
        rows = list(pool.map(compiled, *zip(*tasks, strict=True))) if tasks else []
    for (module, index, _), row in zip(tasks, rows, strict=True):
        if wrong := problem(row, builds[module][index], bound):
            problems.append(f"{module}: {row.build} on {row.target} {wrong}")
    return rows, problems


def table(rows: list[Row]) -> str:
    """The rows as text."""
    cells = [("kernel", "target", "registers", "spills", "shared KB", "tensor-core instructions")]
    for row in rows:
        tensor = f"{row.tensor_ops} {row.tensor_op}" if row.tensor_ops else "-"
        cells.append((row.build, row.target, str(row.registers), str(row.spills), f"{row.shared / 1024:.1f}", tensor))
    widths = [max(len(line[i]) for line in cells) for i in range(6)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("modules", nargs="*", help="dotted names or files; by default all modules of groupcc.ops")
    parser.add_argument("--only", default="", help="builds whose module and name contain this")
    parser.add_argument("--json", type=Path, help="write the rows and problems there")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    everything = package_modules()
    sources = {name: everything.get(name) or Path(name) for name in args.modules} or everything
    rows, problems = run(sources, args.only, args.jobs, spill_bound(triton.__version__))
    warnings = [f"{row.module}: {row.build} on {row.target} spills {row.spills}" for row in rows if row.spills]
    warnings = [line for line in warnings if line not in problems]
    print(f"Triton {triton.__version__}\n{table(rows)}")
    for line in warnings:
        print(f"WARNING {line}, at most {SPILL_BOUND} pass under a Triton other than {' and '.join(NAMED)}")
    for line in problems:
        print(f"PROBLEM {line}")
    if args.json:
        shown = [asdict(row) for row in rows]
        report = {"triton": triton.__version__, "rows": shown, "warnings": warnings, "problems": problems}
        args.json.write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
