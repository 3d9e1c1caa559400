"""The pose of a family's member relative to its reference: which element it is, and at which angle."""

from __future__ import annotations

import numpy as np
import torch

from groupcc.analysis.symmetry.interpolation import UPSAMPLING, interpolate, refine
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray

__all__ = ["best_equivalent", "consistent", "turn"]

POSE_SLACK = 0.01
"""Of equivalent poses with a cosine within this of the best one, the smallest element is taken."""


def best_equivalent(group: PlanarGroup, cosine_G: FloatArray, stabilizer: Stabilizer | None) -> int:
    """Returns the pose h with the highest cosine(h) = cos(d, R_h d_reference): of those equivalent and as good, the
    smallest.

    The elements hH are equivalent to h, H the reference's stabilizer. If H has mirrors, only rotations are looked at,
    with their neighbours: an axis between two elements makes a reflection only nearly equivalent to a rotation.
    """
    h = int(np.argmax(cosine_G))
    if stabilizer is None:
        return h
    options = group.cayley[h, np.flatnonzero(stabilizer.mask)]
    if (stabilizer.mask & group.reflections).any():
        rotations = options[~group.reflections[options]]
        options = np.concatenate([(rotations + shift) % group.n for shift in (-1, 0, 1)])
    options = np.unique(options)
    cosines = cosine_G[options]
    return int(options[np.argmax(cosines >= cosines.max() - POSE_SLACK)])


def consistent(
    group: PlanarGroup, cosine_G: FloatArray, measured: int, agreed: int, stabilizer: Stabilizer | None
) -> int:
    """Returns the `measured` pose if it is within a step of the `agreed` one or an equivalent, else the best such."""
    n = group.n
    rotations = np.zeros(1, dtype=np.int64)
    if stabilizer is not None:
        rotations = np.flatnonzero(stabilizer.mask & ~group.reflections)
    steps = (agreed % n + np.concatenate([rotations + shift for shift in (-1, 0, 1)])) % n
    options = np.unique(steps + agreed // n * n)
    if measured in options:
        return measured
    cosines = cosine_G[options]
    return int(options[np.argmax(cosines >= cosines.max() - POSE_SLACK)])


def turn(group: PlanarGroup, cosine_G: FloatArray, h: int, stabilizer: Stabilizer | None) -> float:
    """Returns the angle of pose h in degrees, moved to the peak of the interpolated cosine within one step of it."""
    n = group.n
    rotations = 1 if stabilizer is None else int((stabilizer.mask & ~group.reflections).sum())
    if rotations == n > 1:
        return 0.0
    coset = cosine_G[n:] if group.reflections[h] else cosine_G[:n]
    curve = interpolate(torch.from_numpy(coset), UPSAMPLING)
    window = torch.arange(-UPSAMPLING, UPSAMPLING + 1) + h % n * UPSAMPLING
    peak = window[int(np.argmax(curve[window % len(curve)].numpy()))]
    position = float(refine(curve[None], peak[None]))
    period = 360.0 / rotations
    angle = position * 360.0 / len(curve) % period
    # A hair below the period is the same turn as 0.
    return 0.0 if period - angle < 1e-3 else float(angle)
