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
from typing import Any, ClassVar, Generic, TypeVar

import torch

from groupcc.ops._dispatch import Dispatched, Kernels, Operator, Saved

__all__ = ["LATER", "Kernels", "Op", "Operator", "Saved"]

A = TypeVar("A", bound=tuple[Any, ...])
R = TypeVar("R")

LATER: Any = None
"""Stands in a record of a gradient's arguments for what is known only when the gradient is computed."""


class Op(Dispatched[A, R], Generic[A, R]):
    """An op. A subclass declares it, and is made once.

    - `reference(args)` is the specification, differentiated by autograd.
    - `outputs`: see `Operator`. The first `differentiable` of them have gradients.
    - `results`, `backends`, `composed`, `reference_pays`: see `Dispatched`.
    - If kernels have gradients: `save(args, outputs)` is the record of what they need, its tensors first.
      `gradients(record, saved, *grads)` maps arguments to their gradients; what it returns for those that need none is
      dropped. `grads` are the gradients of the outputs, None for zero; at least one is given.
    - `d_outputs(record)`: the outputs of the operator `backward`, which runs `backward` of the backend's module.

    Whatever runs computes in the dtype of its arguments, under autocast too. Only the reference's gradients, which are
    autograd's own, follow autocast where the backward pass itself runs or is traced under it.
    """

    differentiable: ClassVar[int] = 1
    save: Callable[..., Any]
    gradients: Callable[..., Mapping[str, torch.Tensor | None]]
    d_outputs: Callable[..., Any]

    def __init__(self) -> None:
        super().__init__()
        self.operator = Operator(self.name, self.outputs, self.kernels, "forward")
        if hasattr(self, "d_outputs"):
            self.backward = Operator[Any](f"{self.name}_backward", self.d_outputs, self.kernels, "backward")
        if hasattr(self, "save"):
            self.operator.register_gradients(self.save, self.gradients, self.differentiable)

    def outputs(self, args: A) -> Any:
        raise NotImplementedError
