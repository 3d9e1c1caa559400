"""What comes with the package: a small trained net, a bank of filters with known symmetries, real photographs,
dictionaries planted with known symmetries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Not lazy: these functions have their modules' names, and whichever is bound last here wins.
from groupcc.zoo.crops import crops
from groupcc.zoo.photographs import Photograph, photographs

if TYPE_CHECKING:
    from groupcc.zoo.bank import known_bank
    from groupcc.zoo.net import load_net

__all__ = ["Photograph", "crops", "known_bank", "load_net", "photographs"]


def __getattr__(name: str) -> Any:
    """`known_bank` and `load_net`, imported when first used: `import groupcc.zoo` alone needs no torch."""
    if name == "known_bank":
        from groupcc.zoo.bank import known_bank

        return known_bank
    if name == "load_net":
        from groupcc.zoo.net import load_net

        return load_net
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
