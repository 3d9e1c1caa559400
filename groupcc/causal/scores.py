"""Scores of one family at one read-out, with their intervals over images."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from groupcc.groups.arrays import FloatArray

__all__ = ["CONDITIONS", "CONTROLS", "FEWEST_IMAGES", "NEGLIGIBLE", "SCORED", "Estimate", "Scores", "Tally"]

CONDITIONS = ("ablated", "averaged", "reposed", "measured", "placed", "turned", "unmoved", "wrong", "random")
"""What stands in the family's place at the layer; see `causal_check`."""

SCORED = CONDITIONS[2:]

CONTROLS = ("placed", "unmoved", "wrong", "random")
"""What "reposed" must beat before poses count as used. "turned" is none: place need not be read where pose is."""

FEWEST_IMAGES = 3
"""Images from which a score has an interval."""

LEVEL = 0.95
"""Of the intervals."""

NEGLIGIBLE = 1e-6
"""A change of the read-out by at most this share of its variance is none: a thousandth of a standard deviation."""


@dataclass
class Tally:
    """Sums over the images of one family.

    `images`: on how many images the family was active. `changed`: positions changed. `power`, `aligned`: Σ act² and
    Σ act²·cosine of the atoms that took over.
    """

    images: int = 0
    changed: int = 0
    power: float = 0.0
    aligned: float = 0.0

    @property
    def similarity(self) -> float:
        """Mean cosine weighted by act²; NaN for a family that never fired."""
        return self.aligned / self.power if self.power > 0 else float("nan")


@dataclass(frozen=True)
class Estimate:
    """A score or a difference of two scores. `error`: its standard error (jackknife over `images`); NaN below three."""

    value: float
    error: float
    images: int

    @property
    def low(self) -> float:
        """Lower end of the 95 % interval (Student's t, `images` − 1 degrees of freedom)."""
        return self.value - self._reach()

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + self._reach()

    def _reach(self) -> float:
        if self.images < FEWEST_IMAGES:
            return math.nan
        return float(stdtrit(self.images - 1, (1 + LEVEL) / 2)) * self.error


class Scores:
    """The scores 1 − Σ error / Σ error of "averaged", and what "reposed" has more than its controls.

    `errors` [images, conditions]: sums of squares between a read-out and the intact one, summed over elements.
    `variance`: the sum of squares of the intact read-outs about their mean. `known`: whether the average changes the
    read-out, without which no score is defined. `images`: those on which the average changes the read-out.
    """

    def __init__(self, errors: FloatArray, variance: float) -> None:
        self._total, self._variance = errors.sum(0), variance
        base = CONDITIONS.index("averaged")
        self.known = bool(self._total[base] > NEGLIGIBLE * variance)
        least = NEGLIGIBLE * self._total[base]
        self.images = int((errors[:, base] > least).sum()) if self.known else 0
        told = errors[errors.max(1) > least]
        total = told.sum(0)
        without = total - told  # the sums without each image in turn
        undefined = np.full(len(CONDITIONS), np.nan)
        self._all: FloatArray = 1.0 - total / total[base] if self.known else undefined
        several = self.images > 1
        self._left: FloatArray = (1.0 - without / without[:, [base]]).T if several else undefined[:, None]

    def change(self, condition: str) -> float:
        """Returns the mean squared change of the read-out over its variance."""
        total = float(self._total[CONDITIONS.index(condition)])
        if self._variance > 0:
            return total / self._variance
        return 0.0 if total == 0 else math.inf

    def of(self, condition: str) -> Estimate:
        """Returns the score of a condition."""
        column = CONDITIONS.index(condition)
        return self._estimate(self._all[column], self._left[column])

    def above(self, *controls: str) -> Estimate:
        """Returns the score of "reposed" less that of the best of these controls."""
        reposed, columns = CONDITIONS.index("reposed"), [CONDITIONS.index(name) for name in controls]
        left = self._left[reposed] - self._left[columns].max(0)
        return self._estimate(self._all[reposed] - self._all[columns].max(), left)

    def _estimate(self, value: float, left: FloatArray) -> Estimate:
        n = self.images
        if n < FEWEST_IMAGES:
            return Estimate(float(value), math.nan, n)
        runs = len(left)
        return Estimate(float(value), math.sqrt((runs - 1) / runs * float(np.square(left - left.mean()).sum())), n)
