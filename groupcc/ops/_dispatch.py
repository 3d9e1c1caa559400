"""How an op runs: which implementation is taken, and the way through torch.library to its kernels.

The implementation is that of `use_backend`, of GROUPCC_BACKEND, or the fastest that supports the inputs.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextvars import ContextVar
from itertools import compress
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, get_type_hints

import torch

from groupcc.errors import BackendError, argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._schema import leading_tensors, schema
from groupcc.ops._torch_private import dynamo_reads_context_variables, read_once_when_compiled

__all__ = [
    "BACKENDS",
    "Dispatched",
    "Kernels",
    "Operator",
    "Saved",
    "current_backend",
    "log_once",
    "needs_gradient",
    "registered_ops",
    "use_backend",
    "without_autocast",
]

BACKENDS = ("reference", "cpp", "triton")
"""Every backend's name. `auto`, the default, chooses among them."""

_AUTO = {"cpu": "cpp", "cuda": "triton"}
# Asked here: PyTorch 2.11 does not trace the question.
_AUTOCAST = tuple(kind for kind in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(kind))
_NOTHING = contextlib.nullcontext()
_chosen: ContextVar[str | None] = ContextVar("groupcc_backend", default=None)
_ops: dict[str, Dispatched[Any, Any]] = {}
_logged: set[str] = set()
_logger = logging.getLogger("groupcc.ops")
_groups_by_name: dict[str, Group] = {}
_KINDS_KEPT = 256
_PLAIN = (torch.Tensor, torch.nn.Parameter)


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


A = TypeVar("A", bound=tuple[Any, ...])
R = TypeVar("R")
A_contra = TypeVar("A_contra", bound=tuple[Any, ...], contravariant=True)
"""An op's arguments, as a NamedTuple whose first field is a tensor."""


class Kernels(Protocol[A_contra]):
    """A backend's module for an op. It has `backward` too, if the op's gradient has kernels."""

    def unsupported(self, args: A_contra, /) -> str | None:
        """Why these arguments don't run here, or None. It reads no more than `Dispatched.reference_pays` may."""

    def forward(self, args: A_contra, /) -> Any:
        """The outputs, as the op's `outputs` describes them."""


class Saved(NamedTuple):
    """What a gradient's formula may ask for beside the record that the forward pass saved."""

    backend: str
    """The backend that ran the forward pass."""
    needs: frozenset[str]
    """The arguments that need a gradient."""


class Operator(Generic[A]):
    """groupcc::<name> in torch.library: the fields of a record and a backend's name → tensors.

    `outputs(record)` is annotated with the record's class and returns empty outputs of the right shapes, types and
    strides. `kernels(backend)` is the module whose function `way` computes them from a record.
    """

    def __init__(self, name: str, outputs: Callable[[A], Any], kernels: Callable[[str], Any], way: str) -> None:
        hints = get_type_hints(outputs)
        returned = hints.pop("return")
        (record,) = hints.values()
        self.record: type[A] = record
        self._groups = [i for i, kind in enumerate(get_type_hints(record).values()) if kind is Group]

        def launch(*values: Any) -> Any:
            args, function = self.lifted(values[:-1]), getattr(kernels(values[-1]), way)
            if args[0].is_cpu and not torch.is_autocast_enabled("cpu"):
                return function(args)
            with torch.cuda.device_of(args[0]), without_autocast(args[0]):
                return function(args)

        self.definition = torch.library.custom_op(
            f"groupcc::{name}", launch, mutates_args=(), schema=schema(record, returned)
        )
        self.definition.register_fake(lambda *values: outputs(self.lifted(values[:-1])))
        self._call = getattr(torch.ops.groupcc, name).default

    def __call__(self, args: A, backend: str) -> Any:
        values = list(args)
        for i in self._groups:
            values[i] = values[i].name
        return self._call(*values, backend)

    def register_gradients(
        self, save: Callable[..., Any], gradients: Callable[..., Mapping[str, torch.Tensor | None]], differentiable: int
    ) -> None:
        """Gradients by `save` and `gradients`, of the first `differentiable` outputs; `Op` says what these are."""
        fields = list(get_type_hints(self.record))
        kept_type = get_type_hints(save)["return"]
        n_tensors = leading_tensors(kept_type)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, tuple) and len(output) > differentiable:
                ctx.mark_non_differentiable(*output[differentiable:])
            ctx.set_materialize_grads(False)  # zeros for what is not used would cost memory and time
            kept = save(self.lifted(inputs[:-1]), output)
            ctx.save_for_backward(*kept[:n_tensors])
            ctx.rest, ctx.backend = kept[n_tensors:], inputs[-1]

        def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
            by_field: list[torch.Tensor | None] = [None] * (len(fields) + 1)  # the backend's name has no gradient
            if grads[0] is None and all(grad is None for grad in grads):
                return tuple(by_field)
            saved = Saved(ctx.backend, frozenset(compress(fields, ctx.needs_input_grad)))
            by_name = gradients(kept_type(*ctx.saved_tensors, *ctx.rest), saved, *grads)
            for i, field in enumerate(fields):
                if field in saved.needs:
                    by_field[i] = by_name.get(field)
            return tuple(by_field)

        self.definition.register_autograd(backward, setup_context=setup)

    def lifted(self, values: tuple[Any, ...]) -> A:
        """The record of values as torch.library has them, where a group is its name."""
        with_groups = list(values)
        for i in self._groups:
            name = values[i]
            if name not in _groups_by_name:
                _groups_by_name[name] = group_named(name)  # made once, as every launch asks
            with_groups[i] = _groups_by_name[name]
        return self.record(*with_groups)


class Dispatched(Generic[A, R]):
    """An op's choice among its implementations, and its call.

    The reference, the op's definition in plain PyTorch, always runs. A backend runs the op in one of two ways:

    - by kernels of its own: `backends` names it, and `load(backend)` is a module like `Kernels`;
    - composed: `composed` maps the backend to the ops that the reference calls there. Then the reference runs, and its
      parts run on that backend or raise. A backend that stands in `backends` too is composed only where a gradient is
      asked for, which its kernels don't have.

    `auto` takes the kernels of the device's backend where they support the arguments and `reference_pays` gives no
    reason against it, else the reference. What it takes by cost is logged once.
    """

    name: ClassVar[str]
    reference: Callable[[A], R]
    operator: Operator[Any]
    results: ClassVar[int | slice | None] = None
    """Which outputs of kernels a caller gets: one by its number, or those of a slice. None: all."""

    backends: ClassVar[tuple[str, ...]] = ("cpp", "triton")
    composed: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    reference_pays: Callable[[A], str | None] | None = None
    """Why the reference costs less for these arguments, or None; absent if it never does.

    This and `unsupported` read the shapes, dtypes and devices of tensors, and the other arguments. They read no numbers
    in tensors: a choice is kept, and made again only for other shapes, dtypes, devices or arguments.
    """
    also_reads: Callable[[A], Hashable] | None = None
    """The settings of PyTorch that `reference_pays` reads beside the arguments; absent if it reads none."""

    def __init__(self) -> None:
        self._modules: dict[str, Kernels[A] | str] = {}
        self._choices: dict[Hashable, str] = {}
        _ops[self.name] = self

    def __call__(self, args: A) -> R:
        backend = self.choose(args)
        if backend != "reference":
            outputs = self.operator(args, backend)
            return outputs if self.results is None else outputs[self.results]
        function = self.reference if current_backend() == "reference" else self.in_pytorch
        with without_autocast(args[0]):
            return function(args)

    def in_pytorch(self, args: A) -> R:
        """What `auto` runs where no kernels run: by default the reference."""
        return self.reference(args)

    def import_kernels(self, backend: str) -> Kernels[A]:
        """The module of one of `backends`. Called when the backend is first needed, so that `import groupcc.ops` needs
        neither Triton nor the extension."""
        raise NotImplementedError

    def choose(self, args: A) -> str:
        """The backend whose kernels run these arguments, or `reference`. BackendError where the one in force cannot."""
        backend = current_backend()
        if backend == "reference":
            return backend
        kind = self._kind(backend, args)
        if kind is None:
            return self._chosen(backend, args)
        choice = self._choices.get(kind)
        if choice is None:
            choice = self._chosen(backend, args)
            if len(self._choices) >= _KINDS_KEPT:
                self.forget()
            self._choices[kind] = choice
        return choice

    def forget(self) -> None:
        """Every choice is made anew. For tests that change what choices are made by, such as a threshold."""
        self._choices.clear()

    def _kind(self, backend: str, args: A) -> Hashable:
        """Returns all that the choice depends on; None while PyTorch traces, since sizes may then be symbols."""
        if torch.compiler.is_compiling():
            return None
        kind = [backend, needs_gradient(args), self.also_reads and self.also_reads(args)]
        for arg in args:
            if not isinstance(arg, torch.Tensor):
                kind.append(arg)
            elif type(arg) in _PLAIN:
                kind.append((arg.shape, arg.dtype, arg.device))
            else:
                return None
        return tuple(kind)

    def _chosen(self, backend: str, args: A) -> str:
        if backend == "auto":
            return self._chosen_by_auto(args)
        if backend in self.composed and (backend not in self.backends or needs_gradient(args)):
            return "reference"
        why_not = self.kernels(backend).unsupported(args)
        if why_not:
            raise BackendError(f"{self.name} on {backend}: {why_not}. Or use use_backend('auto').")
        return backend

    def has_kernels_for(self, args: A) -> bool:
        """Whether kernels of the op's own run these arguments on the backend in force, rather than its reference."""
        return self.choose(args) != "reference"

    def _chosen_by_auto(self, args: A) -> str:
        backend = _AUTO.get(args[0].device.type, "reference")
        if backend not in self.backends or isinstance(module := self.load(backend), str):
            return "reference"
        if module.unsupported(args) or (backend in self.composed and needs_gradient(args)):
            return "reference"
        if self.reference_pays is None:
            return backend
        reason = self.reference_pays(args)
        taken, because = ("reference", f": {reason}") if reason else (backend, ", by its cost")
        if not torch.compiler.is_compiling():
            log_once(f"{self.name}: auto takes {taken}{because}.")
        return taken

    def kernels(self, backend: str) -> Any:
        """The backend's module for this op; BackendError where there is none here."""
        if backend not in self.backends:
            raise BackendError(
                f"{self.name} has no {backend} implementation (it has {', '.join(('reference', *self.backends))}). "
                "Use use_backend('auto'), or see `groupcc doctor`."
            )
        module = self.load(backend)
        if isinstance(module, str):
            raise BackendError(f"{self.name}: {backend} is off: {module}. Use use_backend('auto').")
        return module

    def load(self, backend: str) -> Kernels[A] | str:
        """The backend's module, or as a string why it cannot be imported here."""
        if backend not in self._modules:
            try:
                self._modules[backend] = self.import_kernels(backend)
            except ImportError as error:
                self._modules[backend] = f"{error}"
                if backend == "cpp":
                    log_once(
                        f"groupcc's compiled CPU kernels are off, so the slower PyTorch path runs ({error}).",
                        logging.WARNING,
                    )
        return self._modules[backend]

    def available(self) -> list[str]:
        """The backends whose module can be imported here, the reference first."""
        return ["reference", *(name for name in self.backends if not isinstance(self.load(name), str))]

    def why_off(self, backend: str) -> str | None:
        """Why the backend cannot run this op here, whatever the arguments; None where it can."""
        if backend == "reference":
            return None
        if backend not in self.backends:
            parts = self.composed.get(backend)
            if parts is None:
                return f"{self.name} has no such kernel"
            return next(filter(None, (_ops[part].why_off(backend) for part in parts)), None)
        module = self.load(backend)
        if isinstance(module, str):
            return module
        if backend == "triton" and not torch.cuda.is_available():
            from groupcc.ops._triton.launch import INTERPRETED

            if not INTERPRETED:
                return "its kernels need a CUDA GPU, and there is none"
        return None


def needs_gradient(args: tuple[Any, ...]) -> bool:
    """Whether autograd would record an op on these arguments."""
    if torch.is_grad_enabled():
        for arg in args:
            if isinstance(arg, torch.Tensor) and arg.requires_grad:
                return True
    return False


def without_autocast(like: torch.Tensor) -> contextlib.AbstractContextManager[Any]:
    kind = like.device.type
    if kind in _AUTOCAST and torch.is_autocast_enabled(kind):
        return torch.autocast(kind, enabled=False)
    return _NOTHING


def log_once(message: str, level: int = logging.INFO) -> None:
    """Logs `message` to `groupcc.ops` the first time that this process comes to say it."""
    if message not in _logged:
        _logged.add(message)
        _logger.log(level, message)


def registered_ops() -> dict[str, Dispatched[Any, Any]]:
    """Every op by name."""
    return dict(_ops)


def _checked(name: str, argument: str) -> str:
    if name != "auto" and name not in BACKENDS:
        raise argument_error(
            argument,
            expected=f"one of auto, {', '.join(BACKENDS)}",
            got=name,
            remedy="`groupcc doctor` says which run here.",
        )
    return name
