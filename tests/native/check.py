"""`make check-native`: the C++ kernels under AddressSanitizer and UBSan, their compiler warnings and their symbols.

    python tests/native/check.py            # everything
    python tests/native/check.py --seconds 60 --seed 7

Builds twice under build/native, apart from the extension in use: once as it is shipped with warnings as errors, for the
symbols; once with the sanitizers, which tests/native/driver.py then runs every op in, on random shapes, for every
instruction set. The exit status is 0 only if nothing was found. Needs gcc on Linux.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "native"
SANITIZERS = "-O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"


def build(name: str, flags: str) -> Path:
    """The extension built with more flags, from nothing; its path."""
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**os.environ, "GROUPCC_FLAGS": flags}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-temp", f"{folder}/objects", "--build-lib"]
    done = subprocess.run(
        [*command, str(folder)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    extension = next((folder / "groupcc").glob("_C*.so"), None)
    if done.returncode or extension is None:  # the extension is optional, so that a failure to build it is no error
        sys.exit(f"{name}: the extension does not build\n{done.stdout}\n{done.stderr}")
    return extension


def foreign_weak_symbols(objects: Path) -> list[str]:
    """Weak symbols of the kernels' objects that do not belong to their own instruction set's namespace.

    The linker keeps one copy of each weak symbol. If a kernel file brings in an inline function that others use too,
    such as one of std::, the copy compiled for AVX-512 may be the one that every CPU gets to run.
    """
    found = []
    for path in sorted(objects.glob("*/csrc/*_kernels.o")):
        isa = path.relative_to(objects).parts[0]
        listing = subprocess.run(["nm", "--demangle", str(path)], capture_output=True, text=True, check=True).stdout
        for line in listing.splitlines():
            symbol = re.match(r"[0-9a-f ]{16} ([WVu]) (.*)", line)
            # DW.ref.* is the address of a personality routine: data, the same everywhere.
            if symbol and f"groupcc::{isa}::" not in symbol[2] and not symbol[2].startswith("DW.ref."):
                found.append(f"{path.relative_to(objects)}: {symbol[2]}")
    return found


def runtime(name: str) -> str:
    """Path of one of gcc's runtime libraries."""
    done = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return os.path.realpath(done.stdout.strip())


def drive(extension: Path, arguments: list[str]) -> int:
    """Runs the driver with the sanitizers' runtime in front of Python, which was built without them."""
    environment = {
        **os.environ,
        # libstdc++ comes with it: the sanitizer looks up __cxa_throw when it starts.
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')} {runtime('libstdc++.so.6')}",
        # Python and PyTorch keep what they allocate at start until the end.
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, str(Path(__file__).parent / "driver.py"), str(extension), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="how long the random shapes go on (default: 60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="use the builds that are there")
    args = parser.parse_args()
    started = time.monotonic()
    if not args.keep:
        build("plain", "-Werror")
    foreign = foreign_weak_symbols(BUILD / "plain" / "objects")
    print(f"warnings: none; foreign weak symbols: {len(foreign)} ({time.monotonic() - started:.0f} s)", flush=True)
    print("".join(f"  {symbol}\n" for symbol in foreign), end="")
    if not args.keep:
        build("sanitized", SANITIZERS)
    print(f"sanitized build ({time.monotonic() - started:.0f} s)", flush=True)
    extension = next((BUILD / "sanitized" / "groupcc").glob("_C*.so"))
    for path in sorted((BUILD / "sanitized" / "objects").glob("**/*_kernels.o")):
        if "__asan_report" not in subprocess.run(["nm", str(path)], capture_output=True, text=True, check=True).stdout:
            sys.exit(f"{path} was compiled without the sanitizer")
    last = BUILD / "last.txt"
    status = drive(extension, [str(args.seconds), str(args.seed), str(last)])
    found = f"exit status {status} in {last.read_text().strip()}" if status and last.exists() else f"status {status}"
    print(f"sanitizers: {found if status else 'clean'} ({time.monotonic() - started:.0f} s)")
    return int(bool(foreign) or status != 0)


if __name__ == "__main__":
    sys.exit(main())
