"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, str], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package.

    `homes`: the module that defines each public name, relative to the package ("run"; ".groups.autocorrelation" is
    beside it). A name that is its own home is a subpackage and public. `modules`: subpackages that can be reached as
    attributes without being in `__all__`.
    """

    def getattr_(name: str) -> Any:
        if name in modules or homes.get(name) == name:
            return importlib.import_module(f"{package}.{name}")
        if name in homes:
            value = getattr(importlib.import_module(f".{homes[name]}", package), name)
            setattr(sys.modules[package], name, value)
            return value
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *modules})

    return getattr_, dir_, sorted(homes)
