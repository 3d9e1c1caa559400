"""Families from the neighbour graph: which latents belong together, and which one the others are posed relative to."""

from __future__ import annotations

import numpy as np

from groupcc.analysis.families.neighbours import NeighbourGraph
from groupcc.analysis.options import FamilyMethod
from groupcc.groups.arrays import IntArray

__all__ = ["cluster", "stars"]


def cluster(graph: NeighbourGraph, threshold: float, method: FamilyMethod) -> IntArray:
    """Returns the reference of each latent, int64 [L]. A reference is its own.

    Only pairs with a similarity ≥ threshold are looked at. A latent without such a pair is alone.

    - "star" (Aslam, Pelekhov and Rus 2004): of the latents not yet in a family, the one with the largest sum of
      similarities becomes the next reference, and its neighbours join it. A latent near several references belongs to
      the most similar. Every member is like its reference.
    - "threshold": connected components (`scipy.sparse.csgraph.connected_components`). A chain of similar latents is
      one family, though its ends may have nothing in common.
    - "hdbscan" (Campello, Moulavi and Sander 2013; `sklearn.cluster.HDBSCAN`) on the distances 1 − similarity, and 1
      for latents that are no pair. Families have at least two members, and chains break where they are thin. A latent
      that it calls noise is alone.

    With "threshold" and "hdbscan" the reference is the member with the largest sum of similarities to the others. Ties
    go to the lower index.
    """
    near = graph.subgraph(graph.similarity >= np.float32(threshold))
    if method == "star":
        return stars(near)
    labels = _components(near) if method == "threshold" else _hdbscan(near)
    return _best_connected(near, labels)


def stars(graph: NeighbourGraph) -> IntArray:
    """Returns the reference of each latent by star clustering of all pairs of a graph."""
    strength = _strength(graph)
    head = np.arange(len(graph))
    best = np.full(len(graph), -1.0)
    covered = strength == 0
    for candidate in np.argsort(-strength, kind="stable"):
        if covered[candidate]:
            continue
        entries = graph.of(candidate)
        near, similarity = graph.neighbours[entries], graph.similarity[entries]
        # No reference is among them: it would have covered the candidate.
        joins = similarity > best[near]
        head[near[joins]], best[near[joins]] = candidate, similarity[joins]
        covered[candidate] = covered[near] = True
    return head


def _strength(graph: NeighbourGraph, keep: np.ndarray | None = None) -> np.ndarray:
    """Returns the sum of each latent's similarities to others, float64 [L]. `keep` bool [E]: the entries that count."""
    weights = graph.similarity if keep is None else np.where(keep, graph.similarity, 0.0)
    return np.bincount(graph.rows(), weights, minlength=len(graph))


def _components(graph: NeighbourGraph) -> IntArray:
    from scipy.sparse.csgraph import connected_components

    return connected_components(graph.matrix(graph.similarity), directed=False)[1]


def _hdbscan(graph: NeighbourGraph) -> IntArray:
    from scipy.sparse import coo_array
    from sklearn.cluster import HDBSCAN

    # Latents without a pair are alone in any case, and would only be linked at random.
    linked = np.flatnonzero(np.diff(graph.starts))
    labels = np.arange(len(graph)) + len(graph)
    if len(linked) == 0:
        return labels
    # The algorithm needs one connected graph: components are chained at the distance of latents without a pair. A
    # distance of 0 would read as no entry.
    distance = np.maximum(1.0 - graph.similarity.astype(np.float64), 1e-6)
    component = _components(graph)
    heads = np.unique(component[linked], return_index=True)[1]
    place = np.zeros(len(graph), dtype=np.int64)
    place[linked] = np.arange(len(linked))
    rows, columns = place[graph.rows()], place[graph.neighbours]
    ones = np.ones(len(heads) - 1)
    matrix = coo_array(
        (
            np.concatenate([distance, ones, ones]),
            (
                np.concatenate([rows, heads[:-1], heads[1:]]),
                np.concatenate([columns, heads[1:], heads[:-1]]),
            ),
        ),
        shape=(len(linked), len(linked)),
    ).tocsr()
    search = HDBSCAN(
        min_cluster_size=2, min_samples=1, metric="precomputed", allow_single_cluster=len(heads) == 1, copy=False
    )
    clusters = search.fit(matrix).labels_
    labels[linked[clusters >= 0]] = clusters[clusters >= 0]
    return labels


def _best_connected(graph: NeighbourGraph, labels: IntArray) -> IntArray:
    """Returns the reference of each latent: of its label the latent with the largest sum of similarities within."""
    labels = np.unique(labels, return_inverse=True)[1]
    strength = _strength(graph, labels[graph.rows()] == labels[graph.neighbours])
    order = np.lexsort((np.arange(len(graph)), -strength, labels))
    return order[np.unique(labels[order], return_index=True)[1]][labels]
