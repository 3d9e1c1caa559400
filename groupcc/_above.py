"""Methods with code in a package above that of their class: the package `groupcc` says here where it is.

So `Atlas.report` works, and analysis does not import the report that is built on it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ["above", "provide"]

_HOMES: dict[str, str] = {}


def provide(**homes: str) -> None:
    """Notes the module of each function. It is imported when the function is first asked for."""
    _HOMES.update(homes)


def above(name: str) -> Callable[..., Any]:
    """Returns the function of that name; KeyError if no package provides it."""
    function: Callable[..., Any] = getattr(importlib.import_module(_HOMES[name]), name)
    return function
