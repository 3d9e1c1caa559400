"""The family map: a place in the plane for every latent, for the eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from groupcc.analysis.families.families import Families
from groupcc.analysis.families.group_fourier import GroupFourier, units
from groupcc.analysis.families.likeness_plane import plane
from groupcc.analysis.families.neighbours import NeighbourGraph
from groupcc.analysis.options import EMBEDDING_METHODS, EmbeddingMethod, Options, check_embedding
from groupcc.analysis.part import Part
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray, IntArray
from groupcc.groups.autocorrelation import latent_step

__all__ = ["Embedding", "embed"]

UMAP_NEIGHBOURS = 15
"""UMAP's own default. The latent itself is one of them."""

RINGS = (0.8, 0.45)
"""Radius of the ring of a family's members, and of the ring of its mirrored members, as shares of its disc's radius."""

GAP = 0.15
"""Room around each disc, so that what is drawn around its members does not touch the next disc. The radius of a single
latent's disc is 0.5."""


@dataclass(frozen=True, eq=False)
class Embedding(Part):
    """Places in the plane: what `embed` returns.

    - `points` float32 [L, 2]: x and y in [0, 1], NaN for latents in no family.
    - `method`: one of `EMBEDDING_METHODS`.
    """

    points: torch.Tensor
    method: EmbeddingMethod

    @classmethod
    def measure(cls, symmetries: Symmetries, families: Families, searched: Families, options: Options) -> Embedding:
        given = families.atoms is not None
        S = symmetries
        return embed(S.W_dec_LGD, S.group, searched, S.stabilizers, options.embedding, by_likeness=given)

    def columns(self, latent: int) -> dict[str, Any]:
        x, y = self.points[latent].tolist()
        return dict.fromkeys(("map_x", "map_y")) if x != x else {"map_x": round(x, 5), "map_y": round(y, 5)}

    def tensors(self) -> dict[str, torch.Tensor]:
        code = torch.tensor(EMBEDDING_METHODS.index(self.method), dtype=torch.int8)
        return {"embedding_points": self.points, "embedding_method": code}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Embedding | None:
        if "embedding_points" not in tensors:
            return None
        return cls(tensors["embedding_points"], EMBEDDING_METHODS[int(tensors["embedding_method"])])


def embed(
    W_dec_LGD: torch.Tensor,
    group: PlanarGroup,
    families: Families,
    stabilizers: list[Stabilizer],
    method: EmbeddingMethod = "pca",
    *,
    by_likeness: bool = False,
) -> Embedding:
    """Draws the map of `families`, as `find_families` returned them, with their `neighbours`.

    - "pca": every family is a disc with an area in proportion to its members. They sit on its rim at the angle of their
      pose, mirrored ones on a ring within. The angle is m·`turn` with m the rotations in the reference's stabilizer, so
      that its poses go round once. Discs lie on shelves, ordered by the two leading principal components of √(power) in
      each irrep and channel of the reference, which no R_h changes: near discs are alike. As nothing covers anything
      else, distances say no more than that. A spectral embedding of the graph would not do. Similarity is a maximum
      over poses, so a family has no shape in it, and the families are its components.
    - "pca" with `by_likeness`: places by similarity itself, see `plane`. For latents that have poses: few of them have
      the shape of another, so discs would say nothing.
    - "umap" (McInnes, Healy and Melville 2018; the extra `groupcc[umap]`): of the neighbour graph, starting from the
      map above. Latents without a neighbour keep their places in a strip below.

    Deterministic: seeds are fixed. ArgumentError for another method, and for "umap" if it is not installed.
    """
    check_embedding(method)
    if by_likeness:
        points = np.zeros((len(families.labels), 2))
        alive = np.flatnonzero(families.labels.numpy() >= 0)
        points[alive] = plane(W_dec_LGD, group, alive)
    else:
        points = _discs(W_dec_LGD, group, families, stabilizers)
    if method == "umap" and families.neighbours is not None:
        points = _umap(families.neighbours, points)
    live = families.labels.numpy() >= 0
    if live.any():
        low = points[live].min(0)
        points = (points - low) / max(float((points[live].max(0) - low).max()), 1e-9)
    points[~live] = np.nan
    return Embedding(torch.from_numpy(points).float(), method)


def _discs(
    W_dec_LGD: torch.Tensor, group: PlanarGroup, families: Families, stabilizers: list[Stabilizer]
) -> FloatArray:
    labels, references = families.labels.numpy(), np.array(families.references, dtype=np.int64)
    points = np.zeros((len(labels), 2))
    if len(references) == 0:
        return points
    sizes = np.bincount(labels[labels >= 0], minlength=len(references))
    radius = 0.5 * np.sqrt(sizes)
    centre = shelves(_components(W_dec_LGD, group, references), radius + GAP)
    rotations = np.array([(stabilizers[i].mask & ~group.reflections).sum() for i in references])
    angle = np.deg2rad(rotations[labels] * families.turns.double().numpy())
    rim = np.where(families.mirrored.numpy(), RINGS[1], RINGS[0]) * np.where(sizes > 1, radius, 0.0)[labels]
    return centre[labels] + rim[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _components(W_dec_LGD: torch.Tensor, group: PlanarGroup, references: IntArray) -> FloatArray:
    """Returns the two leading principal components of what no R_h changes, [F, 2]; 0 if there are fewer."""
    from sklearn.utils.extmath import randomized_svd

    fourier = GroupFourier(group, W_dec_LGD)
    weights = [irrep.power_weight(group.order) for irrep in group.irreps()]
    D = W_dec_LGD.shape[2]
    parts = []
    for index in torch.from_numpy(references).split(latent_step(max(len(references), 1), group, D)):
        unit = units(W_dec_LGD, index)
        powers = [
            weight * x_hat.view(len(index), dim * dim, D).square().sum(1)
            for weight, dim, x_hat in zip(weights, fourier.dims, fourier.forward(unit), strict=True)
        ]
        parts.append(torch.cat(powers, dim=1).sqrt().float().cpu())
    X = torch.cat(parts).numpy()
    X -= X.mean(0)
    components = np.zeros((len(X), 2))
    count = min(2, *X.shape)
    U, S, _ = randomized_svd(X, n_components=count, random_state=0)
    components[:, :count] = U * S
    return components


def shelves(order: FloatArray, radius: FloatArray) -> FloatArray:
    """Returns centres of discs on shelves: shelf after shelf by order[:, 1], on each shelf by order[:, 0].

    A shelf is about as long as all shelves together are high.
    """
    # Half as much again, for what lies empty above the smaller discs of a shelf.
    width = float(np.sqrt(6 * (radius**2).sum()))
    centre = np.zeros((len(radius), 2))
    by_row = np.argsort(order[:, 1], kind="stable")
    shelf = np.minimum((2 * radius[by_row]).cumsum() // (width + 1e-9), len(radius))
    y = 0.0
    for row in np.unique(shelf):
        discs = by_row[shelf == row]
        discs = discs[np.argsort(order[discs, 0], kind="stable")]
        right = (2 * radius[discs]).cumsum()
        centre[discs, 0] = right - radius[discs]
        centre[discs, 1] = y + radius[discs].max()
        y += 2 * radius[discs].max()
    return centre


def _umap(graph: NeighbourGraph, start: FloatArray) -> FloatArray:
    import warnings

    linked = np.flatnonzero(np.diff(graph.starts))
    if len(linked) < 4:
        return start
    import umap

    place = np.full(len(graph), -1)
    place[linked] = np.arange(len(linked))
    k = min(UMAP_NEIGHBOURS, len(linked) - 1)
    # −1 at an infinite distance: there are no more neighbours.
    indices = np.full((len(linked), k), -1, dtype=np.int32)
    distances = np.full((len(linked), k), np.inf, dtype=np.float32)
    indices[:, 0], distances[:, 0] = np.arange(len(linked)), 0.0
    for row, latent in enumerate(linked.tolist()):
        entries = graph.of(latent)
        nearest = np.argsort(-graph.similarity[entries], kind="stable")[: k - 1]
        indices[row, 1 : len(nearest) + 1] = place[graph.neighbours[entries][nearest]]
        distances[row, 1 : len(nearest) + 1] = np.maximum(1.0 - graph.similarity[entries][nearest], 0.0)
    first = start[linked] - start[linked].mean(0)
    first = (10.0 * first / max(float(np.abs(first).max()), 1e-9)).astype(np.float32)
    with warnings.catch_warnings():
        # It warns of a given graph, missing neighbours and one thread, all of which are meant.
        warnings.simplefilter("ignore")
        knn = (indices, distances)
        umapped = umap.UMAP(n_neighbors=k, init=first, precomputed_knn=knn, random_state=0, n_jobs=1).fit_transform(
            first
        )
    points = np.asarray(start, dtype=np.float64).copy()
    points[linked] = np.where(np.isfinite(umapped), umapped, first)
    alone = np.flatnonzero(np.diff(graph.starts) == 0)
    low, high = points[linked].min(0), points[linked].max(0)
    span = max(float((high - low).max()), 1e-9)
    side = max(1, int(np.ceil(np.sqrt(10 * len(alone)))))
    cell = span / side
    points[alone] = np.stack(
        [low[0] + cell * (np.arange(len(alone)) % side), low[1] - cell * (2 + np.arange(len(alone)) // side)], axis=1
    )
    return points
