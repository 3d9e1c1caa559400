"""The schema that torch.library has of an operator, derived from the annotations of a NamedTuple."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch

from groupcc.groups import Group

__all__ = ["leading_tensors", "schema"]

_TYPES = {
    torch.Tensor: "Tensor",
    int: "SymInt",
    bool: "bool",
    str: "str",
    Group: "str",
    tuple[int, ...]: "SymInt[]",
}


def schema(record: type[tuple[Any, ...]], returned: Any) -> str:
    """The fields of `record` and a backend's name → `returned`, a tensor or a tuple of tensors."""
    arguments = ", ".join(f"{_type(kind)} {field}" for field, kind in get_type_hints(record).items())
    tensors = ["Tensor"] * len(get_args(returned))
    returns = "Tensor" if returned is torch.Tensor else f"({', '.join(tensors)})"
    return f"({arguments}, str backend) -> {returns}"


def leading_tensors(record: type[tuple[Any, ...]]) -> int:
    """How many fields of the record hold tensors. TypeError unless they come first."""
    kinds = [_type(kind).startswith("Tensor") for kind in get_type_hints(record).values()]
    if kinds != sorted(kinds, reverse=True):
        raise TypeError(f"{record.__module__}.{record.__name__}: tensors must come before other fields")
    return sum(kinds)


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        (kind,) = (kind for kind in get_args(annotation) if kind is not NoneType)
        return f"{_TYPES[kind]}?"
    return _TYPES[annotation]
