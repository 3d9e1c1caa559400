"""What is done to the transformed pixels before the model sees them; the same for every transform."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from groupcc.errors import argument_error

__all__ = ["Preprocess", "PreprocessLike", "parse_preprocess"]

PreprocessLike = Callable[[torch.Tensor], torch.Tensor] | tuple[Sequence[float], Sequence[float]] | None


@dataclass(frozen=True)
class Preprocess:
    """Minus `mean`, over `std`, channel by channel, or a callable on float [B, C, H, W]; neither leaves the pixels.

    It comes after the transform: pointwise, it commutes with every transform, and fill is never normalised.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    function: Callable[[torch.Tensor], torch.Tensor] | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.function is not None:
            result = self.function(images)
            if not isinstance(result, torch.Tensor) or result.dim() != 4 or len(result) != len(images):
                got = f"shape {tuple(result.shape)}" if isinstance(result, torch.Tensor) else type(result).__name__
                raise argument_error(
                    "preprocess",
                    expected=f"a callable from [B, C, H, W] to [B, C', H, W] (it got {tuple(images.shape)})",
                    got=got,
                    remedy="It is given batches of RGB in [0, 1].",
                )
            return result
        if not self.mean:
            return images
        if images.shape[1] % len(self.mean):
            raise argument_error(
                "preprocess",
                expected=f"a mean and standard deviation for {images.shape[1]} channels",
                got=f"{len(self.mean)} of each",
                remedy="Give one number for each channel.",
            )
        mean = images.new_tensor(self.mean).view(1, -1, 1, 1)
        return (images - mean) / images.new_tensor(self.std).view(1, -1, 1, 1)

    def describe(self) -> Any:
        """What goes into the store's settings: the numbers, or the callable's name (its code isn't compared)."""
        if self.function is not None:
            name = getattr(self.function, "__qualname__", type(self.function).__qualname__)
            return f"{getattr(self.function, '__module__', '?')}.{name}"
        return {"mean": list(self.mean), "std": list(self.std)} if self.mean else None


def parse_preprocess(
    preprocess: PreprocessLike, default: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> Preprocess:
    """A Preprocess, a callable, a pair (mean, std), or None for the model's own (mean, std), if it has one."""
    if isinstance(preprocess, Preprocess):
        return preprocess
    if callable(preprocess):
        return Preprocess(function=preprocess)
    pair = default if preprocess is None else preprocess
    if pair is None:
        return Preprocess()
    try:
        mean, std = (tuple(float(value) for value in values) for values in pair)
        valid = len(mean) == len(std) > 0 and all(value > 0 for value in std)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise argument_error(
            "preprocess",
            expected="a callable, or (mean, std) with one number for each channel and std > 0",
            got=preprocess,
            remedy="For ImageNet models: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).",
        )
    if set(mean) == {0.0} and set(std) == {1.0}:
        return Preprocess()
    return Preprocess(mean, std)
