"""Builds the C++ extension `groupcc._C` from csrc/. Everything else is in pyproject.toml."""

from pathlib import Path

from pybind11.setup_helpers import Pybind11Extension, build_ext
from setuptools import setup

sources = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
# `optional`: without a compiler the pure-Python package installs and works on the reference path.
extensions = [Pybind11Extension("groupcc._C", sources, cxx_std=17, optional=True)] if sources else []

setup(ext_modules=extensions, cmdclass={"build_ext": build_ext})
