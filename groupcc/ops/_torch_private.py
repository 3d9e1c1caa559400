"""Everything private of PyTorch that groupcc uses.

tests/ops/test_torch_private.py lists the names and fails where a PyTorch lacks one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import torch

__all__ = ["dynamo_reads_context_variables", "fast_bfloat16", "onednn_product", "read_once_when_compiled"]

_Function = TypeVar("_Function", bound=Callable[..., object])


def read_once_when_compiled(function: _Function) -> _Function:
    """Decorates a function that Dynamo cannot trace: Dynamo calls it once and compiles its result as a constant.

    torch.compiler.assume_constant_result does the same, but imports Dynamo first, which takes seconds.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@read_once_when_compiled
def dynamo_reads_context_variables() -> bool:
    """Whether Dynamo traces `ContextVar.get`. PyTorch 2.11 does not. To be asked only while Dynamo traces."""
    return hasattr(sys.modules["torch._dynamo.variables"], "ContextVarVariable")


def onednn_product(a_MK: torch.Tensor, b_NK: torch.Tensor) -> torch.Tensor:
    """a bᵀ [M, N] by oneDNN, whichever library PyTorch itself would take. AttributeError where there is no such way."""
    return torch.ops.mkldnn._linear_pointwise(a_MK, b_NK, None, "none", [], "")


@lru_cache(maxsize=1)
def fast_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products and PyTorch uses them."""
    has = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(supported is not None and supported() for supported in has) and bool(
        torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
