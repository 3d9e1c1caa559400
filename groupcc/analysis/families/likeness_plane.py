"""A place in the plane for each latent: the more alike two latents are, the nearer they lie."""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial import cKDTree

from groupcc.analysis.families.neighbours import Correlations
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray, IntArray

__all__ = ["LANDMARKS", "SPACING", "plane"]

LANDMARKS = 512
"""Latents that all others are compared with. If there are no more latents, all pairs are compared."""

SPACING = 0.7
"""Least distance of two places, as a share of the distance in a square grid of as many places."""

ROUNDS = 400


def plane(W_dec_LGD: torch.Tensor, group: PlanarGroup, latents: IntArray) -> FloatArray:
    """Returns places of the latents int64 [n] in a unit square, float64 [n, 2].

    Classical scaling (Torgerson 1952), a principal component analysis of similarities: the two leading eigenvectors of
    the doubly centred S_ij = max_h cos(d_i, R_h d_j), each times the root of its eigenvalue. Similarity is that in the
    best relative pose, so poses don't matter. If there are more than `LANDMARKS` latents, the eigenvectors are those of
    `LANDMARKS` latents, evenly spaced by index, and the others are placed by their similarity to these (de Silva and
    Tenenbaum 2004). Then places are moved apart until none lie nearer than `SPACING` says, or `ROUNDS` have passed.
    Deterministic.
    """
    n = len(latents)
    if n < 2:
        return np.zeros((n, 2))
    live = torch.from_numpy(latents).to(W_dec_LGD.device)
    correlations = Correlations(W_dec_LGD, group, live)
    marks = np.unique(np.linspace(0, n - 1, min(n, LANDMARKS)).round().astype(np.int64))
    similarity = np.stack([correlations.with_reference(live, int(latents[mark])).max(1) for mark in marks], axis=1)
    of_marks = similarity[marks]
    of_marks = (of_marks + of_marks.T) / 2
    centred = of_marks - of_marks.mean(0) - of_marks.mean(1, keepdims=True) + of_marks.mean()
    values, vectors = np.linalg.eigh(centred)
    values, vectors = values[:-3:-1], vectors[:, :-3:-1]
    # An eigenvector's sign is arbitrary: its largest entry is positive.
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), np.arange(vectors.shape[1])])
    places = np.zeros((n, 2))
    places[:, : len(values)] = similarity @ (vectors / np.sqrt(np.maximum(values, 1e-12)))
    return _apart(places)


def _apart(points: FloatArray) -> FloatArray:
    n = len(points)
    least = SPACING / np.sqrt(n)
    low = points.min(0)
    points = (points - low) / np.maximum((points.max(0) - low).max(), 1e-9)
    # Two places on top of one another need a direction to part in: the golden angle gives each its own.
    angle = np.arange(n) * np.pi * (3 - np.sqrt(5))
    points = points + 1e-3 * least * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    for _ in range(ROUNDS):
        pairs = cKDTree(points).query_pairs(least, output_type="ndarray")
        if len(pairs) == 0:
            break
        pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
        i, j = pairs.T
        between = points[i] - points[j]
        distance = np.linalg.norm(between, axis=1, keepdims=True)
        push = 0.25 * (1.01 * least - distance) * between / np.maximum(distance, 1e-12)
        np.add.at(points, i, push)
        np.add.at(points, j, -push)
    return points
