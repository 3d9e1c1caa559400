"""Builds the C++ extension `groupcc._C` from csrc/. Everything else is in pyproject.toml."""

import os
import platform
import tempfile
from pathlib import Path

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension, build_ext, naive_recompile
from setuptools import setup

CSRC = Path("csrc")
# Each *_kernels.cpp is compiled once for every instruction set; csrc/isa.cpp chooses among them when it is loaded.
# No flag here depends on the machine that builds.
X86 = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"],
    "avx512": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512cd", "-mprefer-vector-width=512"),
        *("-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mpopcnt"),
    ],
}
# -MMD leaves beside each object the headers it was compiled from.
FLAGS = ["-O3", "-g0", "-MMD", "-fno-math-errno", "-fno-trapping-math", "-Wall", "-Wextra"]

MORE_FLAGS = os.environ.get("GROUPCC_FLAGS", "").split()  # have the last word, when compiling and when linking


SETTINGS = [Path(__file__)]  # what every object depends on beside its source


class BuildKernels(build_ext):
    """build_ext that adds each kernel file's objects, one for every instruction set."""

    def build_extension(self, ext):
        openmp = self._openmp()
        ext.extra_compile_args += FLAGS + openmp + MORE_FLAGS
        ext.extra_link_args += openmp + MORE_FLAGS
        flags = Path(self.build_temp) / "flags.txt"  # written only where they are others than those of the last build
        if not flags.exists() or flags.read_text() != " ".join(openmp + MORE_FLAGS):
            flags.parent.mkdir(parents=True, exist_ok=True)
            flags.write_text(" ".join(openmp + MORE_FLAGS))
        SETTINGS.append(flags)
        ext.depends = [*ext.depends, *map(str, SETTINGS)]
        sets = X86 if platform.machine().lower() in ("x86_64", "amd64") else {"baseline": []}
        kernels = sorted(str(path) for path in CSRC.glob("*_kernels.cpp"))
        for isa, flags in sets.items():
            ext.extra_objects += self.compiler.compile(
                kernels,
                output_dir=str(Path(self.build_temp) / isa),
                macros=[("GROUPCC_ISA", isa), (f"GROUPCC_ISA_{isa.upper()}", "1")],
                extra_postargs=[*ext.extra_compile_args, "-std=c++17", "-fvisibility=hidden", *flags],
                depends=ext.depends,
            )
        ext.depends = [*ext.depends, *ext.extra_objects]  # else a change to kernels alone is compiled but not linked
        ext.define_macros += [(f"GROUPCC_HAS_{isa.upper()}", "1") for isa in sets]
        super().build_extension(ext)

    def _openmp(self):
        """The flag for OpenMP where the compiler has it; otherwise csrc/parallel.h starts threads itself."""
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "probe.cpp"
            source.write_text("#include <omp.h>\nint main() { return omp_get_max_threads() < 1; }\n")
            try:
                objects = self.compiler.compile([str(source)], output_dir=directory, extra_postargs=["-fopenmp"])
                self.compiler.link_executable(objects, str(Path(directory) / "probe"), extra_postargs=["-fopenmp"])
            except Exception:
                return []
        return ["-fopenmp"]


def changed(obj, source):
    """Whether the object is older than its source, a header that it was compiled from, or the flags."""
    listed = Path(obj).with_suffix(".d")
    if naive_recompile(obj, source):
        return True
    if not listed.exists():
        return False
    headers = [Path(name) for name in listed.read_text().replace("\\\n", " ").split(":", 1)[1].split()]
    built = Path(obj).stat().st_mtime
    return any(not path.exists() or path.stat().st_mtime > built for path in [*headers, *SETTINGS])


ParallelCompile("GROUPCC_BUILD_JOBS", default=2, needs_recompile=changed).install()
setup(
    # `optional`: without a compiler the pure-Python package installs and works on the reference path.
    ext_modules=[
        Pybind11Extension(
            "groupcc._C",
            sorted(str(path) for path in CSRC.glob("*.cpp") if not path.stem.endswith("_kernels")),
            depends=sorted(str(path) for path in CSRC.glob("*.h")),
            cxx_std=17,
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildKernels},
)
