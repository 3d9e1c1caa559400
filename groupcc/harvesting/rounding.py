"""How much of what activations say is lost where they are rounded to the storage dtype."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from groupcc.errors import DataError

__all__ = ["LARGEST_LOSS", "Rounding", "check_loss"]

LARGEST_LOSS = 1e-3
"""Share of the variance that rounding may take."""
NO_SPREAD = 1e-13
"""Variance, as a share of the mean square, of values that are constant but for float32's own rounding."""


class Rounding:
    """What rounding takes from the images of one shard. Sums in fp64, about the mean of each channel."""

    def __init__(self) -> None:
        self._lost = self._size = self._within = 0.0
        self._means: list[torch.Tensor] = []
        self._count = 0

    def add(self, given_PGD: torch.Tensor, stored_PGD: torch.Tensor) -> None:
        """Takes one image's activations in float32 and in the storage dtype. All images have as many positions."""
        self._count = given_PGD.shape[0] * given_PGD.shape[1]
        mean_D = given_PGD.mean((0, 1), dtype=torch.float64)
        self._means.append(mean_D.cpu())
        self._within += _squares(given_PGD - mean_D.to(given_PGD.dtype))
        self._lost += _squares(stored_PGD.to(given_PGD.dtype) - given_PGD)
        self._size += _squares(given_PGD)

    def sums(self) -> dict[str, float]:
        """Returns "lost" Σ (stored − given)², "spread" Σ (given − mean)² and "size" Σ given²."""
        means_BD = torch.stack(self._means)
        spread = self._within + self._count * _squares(means_BD - means_BD.mean(0))
        return {"lost": self._lost, "spread": spread, "size": self._size}


def check_loss(shards: Iterable[dict[str, float]], dtype: str) -> None:
    """Compares what rounding to `dtype` takes with what there is, by the sums of shards.

    Raises:
        DataError: rounding takes more than `LARGEST_LOSS` of the variance.
    """
    sums = list(shards)
    lost, spread, size = (sum(shard[name] for shard in sums) for name in ("lost", "spread", "size"))
    if spread <= NO_SPREAD * size or lost <= LARGEST_LOSS * spread:
        return
    raise DataError(
        f"dtype: rounded to {dtype}, the activations lose {min(lost / spread, 1.0):.2%} of their variance about each "
        f"channel's mean, more than {LARGEST_LOSS:.1%}. They are too small for {dtype}, or far from zero and close "
        'together. The shard was not written. Harvest with dtype="float32" (--dtype float32).'
    )


def _squares(values: torch.Tensor) -> float:
    # The norm in fp64: squares of values below 1e-19 would be 0 in float32.
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
