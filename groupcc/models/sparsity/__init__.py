"""The kinds of sparsity: how latents are chosen. One file a kind, one line here.

A new kind is a class derived from `groupcc.models.sparsity.base.Sparsity` in a file that is called as the kind. This
module imports none of them before one is asked for: the command line lists the kinds without PyTorch.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

__all__ = ["SPARSITIES", "sparsity_of"]

SPARSITIES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "l1": "L1",
    "jumprelu": "JumpReLU",
    "matryoshka": "Matryoshka",
}
"""Each kind's name, which is also that of its file, and its class there."""


@cache
def sparsity_of(kind: str) -> Any:
    """Returns the `Sparsity` of this name, one object for all crosscoders; KeyError if there is none."""
    return getattr(importlib.import_module(f"{__name__}.{kind}"), SPARSITIES[kind])()
