"""Which implementation of an op runs: `use_backend`, GROUPCC_BACKEND, or the fastest that supports the inputs."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import torch

from groupcc.errors import BackendError, argument_error
from groupcc.ops._torch_private import dynamo_reads_context_variables, read_once_when_compiled

__all__ = ["BACKENDS", "Op", "backend_status", "current_backend", "log_once", "registered_ops", "use_backend"]

BACKENDS = ("reference", "cpp", "triton")
"""Every backend's name. `auto`, the default, chooses among them."""

_AUTO = {"cpu": "cpp", "cuda": "triton"}
# Asked here: PyTorch 2.11 does not trace the question.
_AUTOCAST = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
_chosen: ContextVar[str | None] = ContextVar("groupcc_backend", default=None)
_ops: dict[str, Op] = {}
_logged: set[str] = set()
_logger = logging.getLogger("groupcc.ops")


def current_backend() -> str:
    """The backend in force: the innermost `use_backend`, else GROUPCC_BACKEND, else `auto`."""
    constant = torch.compiler.is_compiling() and not dynamo_reads_context_variables()
    name = _chosen_when_compiled() if constant else _chosen.get()
    if name is not None:
        return name
    return _checked(os.environ.get("GROUPCC_BACKEND", "auto"), "GROUPCC_BACKEND")


# Where Dynamo cannot read context variables (PyTorch 2.11), compiled code keeps the backend of the time of compilation.
@read_once_when_compiled
def _chosen_when_compiled() -> str | None:
    return _chosen.get()


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Runs the ops inside the `with` block on one backend: `reference`, `cpp`, `triton` or `auto`.

    A named backend runs or raises [`BackendError`][groupcc.errors.BackendError]; it is never replaced quietly. The
    backward pass of what ran inside uses the same backend, wherever it is called.
    """
    token = _chosen.set(_checked(name, "name"))
    try:
        yield
    finally:
        _chosen.reset(token)


class Op:
    """An op with its implementations; calling it runs the one in force.

    - `reference`: the specification in plain PyTorch, differentiated by autograd.
    - `library`: the op as `torch.library` knows it, with fake tensors and gradients: the reference's arguments and,
      last, the backend's name. Its body calls `launch(backend, ...)`.
    - `backends`: those with a module `groupcc.ops.<name>.<backend>`, imported when first needed, so that
      `import groupcc.ops` needs neither Triton nor the extension. The module has `unsupported(*args)`, None or why
      these arguments don't run there, and the launchers; it may have `slower(*args)`, None or why the reference costs
      less for these.

    `auto` takes cpp for CPU tensors and triton for CUDA tensors where they support the arguments and are not the
    slower, else the reference. What it takes by cost is logged once.

    Whatever runs computes in the dtype of its arguments, under autocast too. Only the reference's gradients, which are
    autograd's own, follow autocast where the backward pass itself runs or is traced under it.
    """

    def __init__(
        self, name: str, reference: Callable[..., Any], library: Callable[..., Any], backends: tuple[str, ...]
    ) -> None:
        self.name = name
        self.reference = reference
        self.library = library
        self.backends = ("reference", *backends)
        self._modules: dict[str, Any] = {}
        _ops[name] = self

    def __call__(self, *args: Any) -> Any:
        backend = self.choose(*args)
        if backend != "reference":
            return self.library(*args, backend)
        with _without_autocast(_first_tensor(args)):
            return self.reference(*args)

    def launch(self, backend: str, function: str, *args: Any) -> Any:
        """`forward` or `backward` of the backend's module, on the device of its tensors."""
        tensor = _first_tensor(args)
        with torch.cuda.device_of(tensor), _without_autocast(tensor):
            return getattr(self.kernels(backend), function)(*args)

    def choose(self, *args: Any) -> str:
        """The backend that runs these arguments; BackendError where the one in force cannot."""
        backend = current_backend()
        if backend == "reference":
            return backend
        if backend == "auto":
            backend = _AUTO.get(_first_tensor(args).device.type, "reference")
            if backend not in self.backends or isinstance(self.load(backend), str):
                return "reference"
            module = self.load(backend)
            if module.unsupported(*args):
                return "reference"
            return self._cheaper(module, backend, *args) if hasattr(module, "slower") else backend
        why_not = self.kernels(backend).unsupported(*args)
        if why_not:
            raise BackendError(f"{self.name} on {backend}: {why_not}. Or use use_backend('auto').")
        return backend

    def _cheaper(self, module: Any, backend: str, *args: Any) -> str:
        reason = module.slower(*args)
        taken, because = ("reference", f": {reason}") if reason else (backend, ", by its cost")
        if not torch.compiler.is_compiling():
            log_once(f"{self.name}: auto takes {taken}{because}.")
        return taken

    def kernels(self, backend: str) -> Any:
        """The backend's module for this op; BackendError where there is none here."""
        if backend not in self.backends:
            raise BackendError(
                f"{self.name} has no {backend} implementation (it has {', '.join(self.backends)}). "
                "Use use_backend('auto'), or see `groupcc doctor`."
            )
        module = self.load(backend)
        if isinstance(module, str):
            raise BackendError(f"{self.name}: {backend} is off: {module}. Use use_backend('auto').")
        return module

    def available(self) -> list[str]:
        """The backends whose module can be imported here, the reference first."""
        return [name for name in self.backends if name == "reference" or not isinstance(self.load(name), str)]

    def why_off(self, backend: str) -> str | None:
        """Why the backend cannot run this op here, whatever the arguments; None where it can."""
        if backend not in self.backends:
            return f"{self.name} has no such kernel"
        if backend == "reference":
            return None
        module = self.load(backend)
        if isinstance(module, str):
            return module
        if backend == "triton" and not torch.cuda.is_available():
            from groupcc.ops._triton.launch import INTERPRETED

            if not INTERPRETED:
                return "its kernels need a CUDA GPU, and there is none"
        return None

    def load(self, backend: str) -> Any:
        """The backend's module, or as a string why it cannot be imported here."""
        if backend not in self._modules:
            try:
                self._modules[backend] = importlib.import_module(f"groupcc.ops.{self.name}.{backend}")
            except ImportError as error:
                self._modules[backend] = f"{error}"
                if backend == "cpp":
                    log_once(
                        f"groupcc's compiled CPU kernels are off, so the slower PyTorch path runs ({error}).",
                        logging.WARNING,
                    )
        return self._modules[backend]


def _first_tensor(args: tuple[Any, ...]) -> torch.Tensor:
    return next(arg for arg in args if isinstance(arg, torch.Tensor))


def _without_autocast(like: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    kind = like.device.type
    if kind in _AUTOCAST and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return contextlib.nullcontext()


def log_once(message: str, level: int = logging.INFO) -> None:
    """Logs `message` to `groupcc.ops` the first time that this process comes to say it."""
    if message not in _logged:
        _logged.add(message)
        _logger.log(level, message)


def registered_ops() -> dict[str, Op]:
    """Every op by name."""
    return dict(_ops)


def backend_status() -> dict[str, str]:
    """For each backend, which ops it runs here, or why it is off."""
    status = {}
    for backend in BACKENDS:
        reasons = {op.name: op.why_off(backend) for op in _ops.values() if backend in op.backends}
        running = [name for name, reason in reasons.items() if reason is None]
        if running:
            status[backend] = f"on: {', '.join(running)}"
        else:
            status[backend] = f"off: {next(iter(reasons.values()), 'this version has no such kernels')}"
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
