"""Which implementation of an op runs: `use_backend`, GROUPCC_BACKEND, or the fastest that supports the inputs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from groupcc.errors import BackendError, argument_error

__all__ = ["BACKENDS", "Op", "backend_status", "current_backend", "registered_ops", "use_backend"]

BACKENDS = ("reference", "cpp", "triton")
"""Every backend's name. `auto`, the default, chooses among them."""

_chosen: ContextVar[str | None] = ContextVar("groupcc_backend", default=None)
_ops: dict[str, Op] = {}


def current_backend() -> str:
    """The backend in force: the innermost `use_backend`, else GROUPCC_BACKEND, else `auto`."""
    name = _chosen.get()
    if name is not None:
        return name
    return _checked(os.environ.get("GROUPCC_BACKEND", "auto"), "GROUPCC_BACKEND")


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs the ops inside the `with` block on one backend: `reference`, `cpp`, `triton` or `auto`.

    A named backend runs or raises [`BackendError`][groupcc.errors.BackendError]; it is never replaced quietly.
    """
    token = _chosen.set(_checked(name, "name"))
    try:
        yield
    finally:
        _chosen.reset(token)


class Op:
    """An op with its implementations by backend; calling it runs the chosen one.

    `reference` is the specification in plain PyTorch. Others are added with `register`; `auto` takes the first
    registered whose `supports(*args)` holds, and the reference where none does.
    """

    def __init__(self, name: str, reference: Callable[..., Any]) -> None:
        self.name = name
        self.implementations: dict[str, Callable[..., Any]] = {"reference": reference}
        self._supports: dict[str, Callable[..., bool]] = {}
        _ops[name] = self

    def register(self, backend: str, function: Callable[..., Any], supports: Callable[..., bool]) -> None:
        """Adds an implementation with the reference's signature."""
        if backend not in BACKENDS or backend in self.implementations:
            raise argument_error(
                "backend",
                expected=f"one of {', '.join(b for b in BACKENDS if b not in self.implementations)}",
                got=backend,
                remedy=f"{self.name} has {', '.join(self.implementations)} already.",
            )
        self.implementations[backend] = function
        self._supports[backend] = supports

    def __call__(self, *args: Any) -> Any:
        backend = current_backend()
        if backend == "auto":
            for name, supports in self._supports.items():
                if supports(*args):
                    return self.implementations[name](*args)
            backend = "reference"
        if backend not in self.implementations:
            raise BackendError(
                f"{self.name} has no {backend} implementation in this installation (it has "
                f"{', '.join(self.implementations)}). Use use_backend('auto'), or see `groupcc doctor`."
            )
        return self.implementations[backend](*args)


def registered_ops() -> dict[str, Op]:
    """Every op by name."""
    return dict(_ops)


def backend_status() -> dict[str, str]:
    """For each backend, which ops it has here, or why it is off."""
    status = {}
    for backend in BACKENDS:
        having = [name for name, op in _ops.items() if backend in op.implementations]
        status[backend] = f"on: {', '.join(having)}" if having else "off: this version has no such kernels"
    return status


def _checked(name: str, argument: str) -> str:
    if name != "auto" and name not in BACKENDS:
        raise argument_error(
            argument,
            expected=f"one of auto, {', '.join(BACKENDS)}",
            got=name,
            remedy="`groupcc doctor` says which run here.",
        )
    return name
