"""What an op is to groupcc and to torch.library, declared once.

The arguments of an op are a NamedTuple. From its annotations, and from those of a function that makes empty outputs,
`Operator` derives the schema, the fake implementation, and the passage of what a schema has no type for (a `Group`
travels as its name). `Op` adds the reference, the backends and the gradient. A new op is a folder with

- reference.py: `Args`, and the op's definition in plain PyTorch;
- __init__.py: the public function, and a subclass of `Op`;
- cpp.py, triton.py: `unsupported(args)`, `forward(args)` and, if the gradient has kernels, `backward(args)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import compress
from types import NoneType, UnionType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import torch

from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._dispatch import Dispatched, Kernels, current_backend, without_autocast

__all__ = ["LATER", "Kernels", "Op", "Operator", "Saved"]

A = TypeVar("A", bound=tuple[Any, ...])
R = TypeVar("R")

LATER: Any = None
"""Stands in a record of a gradient's arguments for what is known only when the gradient is computed."""

_SCHEMA_TYPES = {
    torch.Tensor: "Tensor",
    int: "SymInt",
    bool: "bool",
    str: "str",
    Group: "str",
    tuple[int, ...]: "SymInt[]",
}
_groups_by_name: dict[str, Group] = {}


def _group(name: str) -> Group:
    """The group of that name; made once, as every launch asks."""
    if name not in _groups_by_name:
        _groups_by_name[name] = group_named(name)
    return _groups_by_name[name]


def _schema_type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = (kind for kind in get_args(annotation) if kind is not NoneType)
        return f"{_SCHEMA_TYPES[kind]}?"
    return _SCHEMA_TYPES[annotation]


def _leading_tensors(record: type[tuple[Any, ...]]) -> int:
    """How many fields of the record hold tensors. They must come first."""
    kinds = [_schema_type(kind).startswith("Tensor") for kind in get_type_hints(record).values()]
    if kinds != sorted(kinds, reverse=True):
        raise TypeError(f"{record.__module__}.{record.__name__}: tensors must come before other fields")
    return sum(kinds)


class Operator(Generic[A]):
    """groupcc::<name> in torch.library: the fields of a record and a backend's name → tensors.

    `outputs(record)` is annotated with the record's class and returns empty outputs of the right shapes, types and
    strides. `kernel(backend)` is the function of a record that computes them.
    """

    def __init__(self, name: str, outputs: Callable[[A], Any], kernel: Callable[[str], Callable[[A], Any]]) -> None:
        hints = get_type_hints(outputs)
        returned = hints.pop("return")
        (record,) = hints.values()
        types = get_type_hints(record)
        tensors = ["Tensor"] * (len(get_args(returned)) or 1)
        returns = "Tensor" if returned is torch.Tensor else f"({', '.join(tensors)})"
        arguments = ", ".join(f"{_schema_type(kind)} {field}" for field, kind in types.items())
        self.record: type[A] = record
        self._groups = [i for i, kind in enumerate(types.values()) if kind is Group]

        def launch(*values: Any) -> Any:
            args, function = self.lifted(values[:-1]), kernel(values[-1])
            if args[0].is_cpu and not torch.is_autocast_enabled("cpu"):
                return function(args)
            with torch.cuda.device_of(args[0]), without_autocast(args[0]):
                return function(args)

        self.definition = torch.library.custom_op(
            f"groupcc::{name}", launch, mutates_args=(), schema=f"({arguments}, str backend) -> {returns}"
        )
        self.definition.register_fake(lambda *values: outputs(self.lifted(values[:-1])))
        self._call = getattr(torch.ops.groupcc, name).default

    def __call__(self, args: A, backend: str) -> Any:
        if self._groups:
            return self._call(*(arg.name if isinstance(arg, Group) else arg for arg in args), backend)
        return self._call(*args, backend)

    def lifted(self, values: tuple[Any, ...]) -> A:
        """The record of values as torch.library has them."""
        if not self._groups:
            return self.record(*values)
        with_groups = list(values)
        for i in self._groups:
            with_groups[i] = _group(values[i])
        return self.record(*with_groups)


class Saved(NamedTuple):
    """What a gradient's formula may ask for beside the record that the forward pass saved."""

    backend: str
    """The backend that ran the forward pass."""
    needs: frozenset[str]
    """The arguments that need a gradient."""


class Op(Dispatched[A], Generic[A, R]):
    """An op. A subclass declares it, and is made once.

    - `reference(args)` is the specification, differentiated by autograd.
    - `outputs`: see `Operator`. The first `differentiable` of them have gradients. Of backends: see `Dispatched`.
    - If kernels have gradients: `save(args, outputs)` is the record of what they need, its tensors first.
      `gradients(record, saved, *grads)` maps arguments to their gradients; what it returns for those that need none is
      dropped. `grads` are the gradients of the outputs, None for zero; at least one is given.
    - `d_outputs(record)`: the outputs of the operator `backward`, which runs `backward` of the backend's module.

    Whatever runs computes in the dtype of its arguments, under autocast too. Only the reference's gradients, which are
    autograd's own, follow autocast where the backward pass itself runs or is traced under it.
    """

    reference: Callable[[A], R]
    differentiable: ClassVar[int] = 1
    save: Callable[..., Any]
    gradients: Callable[..., Mapping[str, torch.Tensor | None]]
    d_outputs: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.operator = Operator(self.name, self.outputs, lambda backend: self.kernels(backend).forward)
        if hasattr(self, "d_outputs"):
            name = f"{self.name}_backward"
            self.backward = Operator[Any](name, self.d_outputs, lambda backend: self.kernels(backend).backward)
        if hasattr(self, "save"):
            self._register_gradients(get_type_hints(self.save)["return"], self.operator.record._fields)

    def outputs(self, args: A) -> Any:
        raise NotImplementedError

    def result(self, outputs: Any) -> R:
        """What callers get of the outputs of kernels: by default all."""
        return outputs

    def in_pytorch(self, args: A) -> R:
        """What `auto` runs where no kernels run: by default the reference."""
        return self.reference(args)

    def __call__(self, args: A) -> R:
        backend = self.choose(args)
        if backend != "reference":
            return self.result(self.operator(args, backend))
        function = self.reference if current_backend() == "reference" else self.in_pytorch
        with without_autocast(args[0]):
            return function(args)

    def _register_gradients(self, record_type: type[Any], fields: tuple[str, ...]) -> None:
        n_tensors = _leading_tensors(record_type)

        def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, tuple) and len(output) > self.differentiable:
                ctx.mark_non_differentiable(*output[self.differentiable :])
            ctx.set_materialize_grads(False)  # zeros for what is not used would cost memory and time
            record = self.save(self.operator.lifted(inputs[:-1]), output)
            ctx.save_for_backward(*record[:n_tensors])
            ctx.rest, ctx.backend = record[n_tensors:], inputs[-1]

        def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
            if grads[0] is None and all(grad is None for grad in grads):
                return (None,) * (len(fields) + 1)
            needs = ctx.needs_input_grad
            saved = Saved(ctx.backend, frozenset(compress(fields, needs)))
            by_name = self.gradients(record_type(*ctx.saved_tensors, *ctx.rest), saved, *grads)
            return (*[by_name.get(field) if need else None for field, need in zip(fields, needs, strict=False)], None)

        self.operator.definition.register_autograd(backward, setup_context=setup)
