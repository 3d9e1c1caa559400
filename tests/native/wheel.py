"""`make check-wheel`: the wheel from a clean copy of the sources, in another environment with another PyTorch.

    python tests/native/wheel.py                       # the lowest PyTorch that pyproject.toml admits; it downloads
    python tests/native/wheel.py --torch 2.11.0 --environment build/wheel/other

1. `pip wheel` in an isolated build of the files that git tracks; the wheel holds the extension and the package's data,
   no sources of it and no tests, was built without flags for this machine's CPU, and links nothing of PyTorch.
2. Installed beside another PyTorch and its Triton, it passes the ops' tests but the slow ones, and the compile gate,
   from a directory where the sources can't be imported.
3. Without a compiler the same sources build a pure-Python wheel, which trains, and says once why it is slower.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "wheel"
# Triton 3.6, which belongs to PyTorch 2.10 and 2.11, has an interpreter that NumPy 2.4 breaks.
TEST_PACKAGES = (
    "pytest", "pytest-xdist", "hypothesis",
    "numpy<2.4", "pillow", "safetensors", "jinja2", "tqdm", "scikit-image", "scikit-learn",
)  # fmt: skip

TRAINS = """
import logging, pathlib, sys
logging.basicConfig(format="%(name)s: %(message)s")
import groupcc, torch
assert not pathlib.Path(groupcc.__file__).is_relative_to(sys.argv[1]), groupcc.__file__
config = groupcc.CrosscoderConfig(group="D4", d_in=3, n_latents=8, k=2)
for _ in range(2):
    groupcc.train(groupcc.GroupCrosscoder(config), torch.randn(64, 8, 3),
                  groupcc.TrainConfig(steps=5, batch_size=16, progress=False))
"""


def run(*command: object, **options: Any) -> str:
    """Its output; ends the check where it fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **options,
    )
    if done.returncode:
        sys.exit(f"{' '.join(str(part) for part in command)}\n{done.stdout[-6000:]}\nexit status {done.returncode}")
    return done.stdout


def export(folder: Path) -> Path:
    """The tracked files as they are on disk, and nothing that was built."""
    shutil.rmtree(folder, ignore_errors=True)
    names = run("git", "ls-files", cwd=ROOT).splitlines()
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder


def build(sources: Path, to: Path, **environment: str) -> tuple[Path, str]:
    """The wheel and what its build printed."""
    shutil.rmtree(to, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-v",
        "--no-deps",
        "--disable-pip-version-check",
        "-w",
        to,
        sources,
    ]
    printed = run(*command, env={**os.environ, **environment})
    (wheel,) = to.glob("*.whl")
    return wheel, printed


def check_contents(wheel: Path, printed: str) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("groupcc/py.typed", "groupcc/_C.pyi", "groupcc/zoo/small_inception.safetensors"):
        assert needed in names, f"{wheel.name} lacks {needed}"
    for name in names:
        assert name.split("/")[0] == "groupcc" or ".dist-info/" in name, f"{wheel.name} holds {name}"
        assert not name.endswith((".cpp", ".h", ".o")), f"{wheel.name} holds {name}"
    tracked = {
        name
        for name in run("git", "ls-files", "groupcc", cwd=ROOT).splitlines()
        if name.endswith((".py", ".html", ".css", ".js"))
    }
    assert tracked <= set(names), f"{wheel.name} lacks {sorted(tracked - set(names))}"
    compiled = [line for line in printed.splitlines() if " -c " in line and "_kernels.cpp" in line]
    assert compiled, "the build did not compile the kernels"
    for line in compiled:
        assert not re.search(r"-m(arch|tune|cpu)=", line), line


def check_linking(wheel: Path, into: Path) -> None:
    """The extension needs the C and C++ runtimes and OpenMP alone."""
    archive = zipfile.ZipFile(wheel)
    (extension,) = (name for name in archive.namelist() if re.match(r"groupcc/_C\..*so$", name))
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", archive.extract(extension, into)))
    allowed = r"(libstdc\+\+|libgomp|libgcc_s|libc|libm|libpthread|ld-linux.*)\.so\.\d+"
    assert all(re.fullmatch(allowed, name) for name in needed), f"{extension} needs {needed}"
    print(f"   {extension} needs {', '.join(needed)}")


def lowest_torch() -> str:
    """Returns the lowest PyTorch that pyproject.toml admits, as pip takes it: "2.10.*"."""
    (version,) = re.findall(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return f"{version}.*"


def environment(folder: Path, torch: str) -> Path:
    """Python of an environment with that PyTorch and what the tests need, made where there is none."""
    python, installed = folder / "bin" / "python", folder / "installed"
    if not installed.exists():  # an install that was interrupted starts anew
        venv.create(folder, with_pip=True)
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run(*pip, f"torch=={torch}", "torchvision", *TEST_PACKAGES)
        installed.touch()
    return python


def check_ops(python: Path, wheel: Path, folder: Path) -> None:
    """The ops' tests and their helpers, copied away from the sources."""
    run(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ("conftest.py", "slow.txt"):
        shutil.copy2(ROOT / "tests" / name, folder)
    for part in ("helpers", "ops"):
        shutil.copytree(ROOT / "tests" / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    shown = "import groupcc, torch; from groupcc import _C; print(torch.__version__, _C.isa(), groupcc.__file__)"
    print(f"   {run(python, '-c', shown, cwd=folder).strip()}", flush=True)
    pytest = [
        *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "pythonpath=.", "--import-mode=importlib"),
        *("-o", "markers=slow", "-W", "error::groupcc.errors.GroupccWarning"),
    ]
    side_by_side = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
    print(f"   {run(*pytest, *side_by_side, '-m', 'not slow', cwd=folder).strip().splitlines()[-1]}", flush=True)
    # Its Triton brings a ptxas of its own.
    gate = "ops/test_compile_gate.py::test_every_kernel_compiles_everywhere_without_spills"
    print(f"   compile gate: {run(*pytest, gate, cwd=folder).strip().splitlines()[-1]}")


def check_pure(python: Path, sources: Path, folder: Path) -> None:
    wheel, _ = build(sources, folder, CC="/bin/false", CXX="/bin/false")
    names = zipfile.ZipFile(wheel).namelist()
    assert not any(name.endswith(".so") for name in names), "a compiler was found after all"
    run(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", wheel)
    printed = run(python, "-c", TRAINS, ROOT / "groupcc", cwd=folder)
    said = [line for line in printed.splitlines() if line.startswith("groupcc")]
    assert len(said) == 1, printed
    assert "compiled CPU kernels are off" in said[0], printed
    print(f"   trains, and says: {said[0]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--torch", default=lowest_torch())
    parser.add_argument("--environment", type=Path, default=None, help="kept there for the next time")
    parser.add_argument("--prepare", action="store_true", help="make the environment, and do no more")
    args = parser.parse_args()
    folder = args.environment or WORK / f"torch-{args.torch.rstrip('.*')}"
    if args.prepare:
        environment(folder, args.torch)
        return
    started = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - started:4.0f} s  {text}", flush=True)

    sources = export(WORK / "sources")
    say("isolated build of the tracked files")
    wheel, printed = build(sources, WORK / "dist")
    check_contents(wheel, printed)
    check_linking(wheel, WORK / "unpacked")
    say(f"an environment with PyTorch {args.torch}")
    python = environment(folder, args.torch)
    say("the ops' tests there")
    check_ops(python, wheel, WORK / "tests")
    say("without a compiler")
    check_pure(python, export(WORK / "sources"), WORK / "pure")  # a build folder still holds the extension
    say("all well")


if __name__ == "__main__":
    main()
