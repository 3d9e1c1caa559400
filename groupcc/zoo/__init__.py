"""What comes with the package: a small trained net, an equivariant one, a bank of filters with known symmetries, real
photographs, dictionaries planted with known symmetries. And what other packages bring: EfficientNet-Lite0."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not lazy: these functions have their modules' names, and whichever is bound last here wins.
from groupcc.zoo.photographs import Photograph, photographs
from groupcc.zoo.real_crops import RealCrops, real_crops, real_photographs

if TYPE_CHECKING:
    from groupcc.zoo.bank import known_bank
    from groupcc.zoo.equivariant import equivariant_net
    from groupcc.zoo.lite0 import efficientnet_lite0
    from groupcc.zoo.net import load_net

__all__ = [
    "Photograph",
    "RealCrops",
    "efficientnet_lite0",
    "equivariant_net",
    "known_bank",
    "load_net",
    "photographs",
    "real_crops",
    "real_photographs",
]

_HOMES = {
    "efficientnet_lite0": "lite0",
    "equivariant_net": "equivariant",
    "known_bank": "bank",
    "load_net": "net",
}


def __getattr__(name: str) -> Any:
    """The networks, imported when first used: `import groupcc.zoo` alone needs no torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"groupcc.zoo.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
