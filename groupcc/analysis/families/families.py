"""Families: latents that are translates of one another, and their relative poses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from groupcc.analysis.families.clustering import FamilyMethod, check_family_method, cluster, stars
from groupcc.analysis.families.member_poses import best_equivalent, consistent, turn
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, Correlations, NeighbourGraph, live_latents
from groupcc.analysis.families.synchronisation import synchronise
from groupcc.analysis.symmetry.autocorrelation import autocorrelation
from groupcc.analysis.symmetry.blocks import latent_step
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import Group
from groupcc.groups.algebra import FloatArray, IntArray

__all__ = ["DUPLICATE_SIMILARITY", "FAMILY_THRESHOLD", "Families", "find_families", "given_families"]

FAMILY_THRESHOLD = 0.75
"""Default least similarity of a family's members to its reference: two copies, each learned at cosine 0.87."""

DUPLICATE_SIMILARITY = 0.95
"""Least similarity of two latents in one pose that are one detector learned twice."""


FILE_NAMES = {
    "family_labels": "labels",
    "family_poses": "poses",
    "family_turns": "turns",
    "family_mirrored": "mirrored",
    "family_similarity": "similarity_to_reference",
    "family_cycle_error": "cycle_error",
    "family_cycle_degrees": "cycle_degrees",
    "family_covered": "covered",
    "family_duplicate_of": "duplicate_of",
}
REQUIRED = ("labels", "poses", "turns", "mirrored", "similarity_to_reference")


@dataclass(frozen=True, eq=False)
class Families:
    """Latents grouped into families, the largest first (ties: by lowest reference).

    - `labels` int64 [L]: family of each latent; a latent alike to no other is a family of one; −1 for dead and spare
      ones, which are left out.
    - `references`: one latent for each family, its best connected one; the others are posed relative to it.
    - `poses` int64 [L]: h with d_l ≈ R_h d_reference, so member l looks like the reference's shape transformed by h.
      Of the equivalent elements hH (H the reference's stabilizer) the most similar, the smallest where several are;
      always a rotation where the reference has a mirror of its own. Consistent around the family: where what the
      other members say outweighs what was measured against the reference, theirs (see `synchronise`).
    - `turns` float32 [L]: the pose as an angle in degrees, counter-clockwise as seen, by which the reference's shape
      is turned (after mirroring x → −x where `mirrored` bool [L]). Interpolated between the elements, so within about
      a degree for smooth shapes. In [0, 360/m) where the reference's stabilizer has m rotations; 0 where it has all.
    - `similarity_to_reference` float32 [L]: max_h cos(d_l, R_h d_reference); 0 for those left out. Never below
      `threshold` where `method` is "star".
    - `method`: how they were found, one of `FAMILY_METHODS`.
    - `cycle_error`, `cycle_degrees` float32 [families]: share of the pairs of a family whose own relative pose differs
      from that of their `poses` by more than a step of 360°/n, and the mean difference; NaN where nothing can differ.
    - `covered` bool [families, G]: whether the reference's shape, transformed by h, has a detector: a member whose
      cosine with R_h d_reference reaches `threshold`, or whose pose it is. See `Atlas.coverage`.
    - `duplicate_of` int64 [L]: the latent that has the same shape in the same pose (similarity at least
      `DUPLICATE_SIMILARITY` at an element of its stabilizer), so that one of the two is not needed; −1 where none.
      Rotated copies are no duplicates.
    - `neighbours`: the graph that they were found in; not kept in an atlas's file.
    - `atoms` int64 [L]: of a tied crosscoder the distinct poses |G|/|H| that each base latent stands for, 0 for dead
      ones; None where a latent stands for itself.
    """

    labels: torch.Tensor
    poses: torch.Tensor
    turns: torch.Tensor
    mirrored: torch.Tensor
    similarity_to_reference: torch.Tensor
    references: list[int]
    threshold: float
    atoms: torch.Tensor | None = None
    method: FamilyMethod = "star"
    cycle_error: torch.Tensor | None = None
    cycle_degrees: torch.Tensor | None = None
    covered: torch.Tensor | None = None
    duplicate_of: torch.Tensor | None = None
    neighbours: NeighbourGraph | None = None

    def __len__(self) -> int:
        return len(self.references)

    def members(self, family: int) -> list[int]:
        """Latents of a family in pose order: by rising turn, mirrored ones after the others; ties by index."""
        found = (self.labels == family).nonzero()[:, 0].tolist()
        return sorted(found, key=lambda latent: (bool(self.mirrored[latent]), float(self.turns[latent]), latent))

    def tensors(self) -> dict[str, torch.Tensor]:
        """What was found, by the names that an atlas saves it under."""
        found = {file: getattr(self, name) for file, name in FILE_NAMES.items()}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, torch.Tensor], references: list[int], threshold: float, method: FamilyMethod
    ) -> Families:
        """From what `tensors` returned, among others, and what has no tensor."""
        found: dict[str, Any] = {name: tensors.get(file) for file, name in FILE_NAMES.items()}
        missing = [file for file, name in FILE_NAMES.items() if name in REQUIRED and found[name] is None]
        if missing:
            raise KeyError(missing[0])
        return cls(references=references, threshold=threshold, method=method, **found)

    def fingerprint(self) -> str:
        """Hex SHA-256 of which latent is in which family: equal families in equal order, equal fingerprints."""
        return hashlib.sha256(self.labels.numpy().astype("<i8").tobytes()).hexdigest()

    @property
    def sizes(self) -> list[int]:
        """Number of members of each family; of atoms, where they are given."""
        live = self.labels >= 0
        weights = None if self.atoms is None else self.atoms[live].double()
        return torch.bincount(self.labels[live], weights, minlength=len(self.references)).long().tolist()


def given_families(group: Group, stabilizers: list[Stabilizer], threshold: float) -> Families:
    """The families of a tied crosscoder, which need no search: each live base latent with all its poses.

    Its atoms R_h d are alike for h in one coset of its stabilizer H, so |G|/|H| are distinct. The largest come first,
    ties by base latent. `threshold` is noted: whether two base latents have one shape is another question, which
    `find_families` answers.
    """
    latents = len(stabilizers)
    atoms = torch.tensor([0 if s.kind == "dead" else group.order // s.order for s in stabilizers], dtype=torch.int64)
    order = atoms.argsort(descending=True, stable=True)
    references = order[: int((atoms > 0).sum())]
    labels = torch.full((latents,), -1, dtype=torch.int64)
    labels[references] = torch.arange(len(references))
    return Families(
        labels=labels,
        poses=torch.zeros(latents, dtype=torch.int64),
        turns=torch.zeros(latents),
        mirrored=torch.zeros(latents, dtype=torch.bool),
        similarity_to_reference=(atoms > 0).float(),
        references=references.tolist(),
        threshold=threshold,
        atoms=atoms,
    )


def find_families(
    W_dec_LGD: torch.Tensor,
    group: Group,
    *,
    threshold: float = FAMILY_THRESHOLD,
    dead: torch.Tensor | None = None,
    stabilizers: list[Stabilizer] | None = None,
    method: FamilyMethod = "star",
    graph: NeighbourGraph | None = None,
) -> Families:
    """Groups latents by the similarity max_h cos(d_i, R_h d_j), and says in which pose each is.

    All pairs are compared once (`find_neighbours`); those with a similarity of `NEIGHBOUR_FLOOR` (or `threshold`, where
    that is lower) make a graph, which all else is read off. `method` says how it is clustered, see `cluster`. By
    default stars, in which every member is like its reference: connected components chain, on a trained net they
    joined edges to others with a cosine of 0.06.

    Each member's pose is measured against its reference, and made consistent around the family (`synchronise`).
    Those in `dead` [L] are left out. `stabilizers` (one a latent) tell which poses are equivalent; without them every
    latent counts as C1. `graph`: of these latents or more, at that floor or a lower one (`find_neighbours`), if it is
    there already. Memory is one more copy of the decoder, the graph, and bounded blocks. Deterministic on the CPU.
    ArgumentError for another method.
    """
    check_family_method(method)
    live = live_latents(W_dec_LGD, dead)
    correlations = Correlations(W_dec_LGD, group, live)
    floor = min(threshold, NEIGHBOUR_FLOOR)
    if graph is None:
        graph = correlations.neighbours(floor)
    else:
        left_out = np.ones(len(W_dec_LGD), dtype=np.bool_)
        left_out[live.cpu().numpy()] = False
        graph = graph.among(floor, left_out)
    labels, references = _largest_first(cluster(graph, threshold, method), live.cpu().numpy())
    of_reference = np.append(references, -1)[labels]

    cosine_LG = _cosines(correlations, W_dec_LGD, labels, references)
    reference_stabilizer = [stabilizers[i] if stabilizers and i >= 0 else None for i in of_reference.tolist()]
    measured = np.zeros(len(labels), dtype=np.int64)
    others = np.flatnonzero((labels >= 0) & (of_reference != np.arange(len(labels))))
    for latent in others.tolist():
        measured[latent] = best_equivalent(group, cosine_LG[latent], reference_stabilizer[latent])
    found = synchronise(graph, labels, references, group, stabilizers, measured)

    poses, turns = measured.copy(), np.zeros(len(labels))
    for latent in others.tolist():
        cosine, stabilizer = cosine_LG[latent], reference_stabilizer[latent]
        agreed = int(found.poses[latent])
        if agreed >= 0 and cosine.max() < graph.floor:
            # Too unlike its reference for anything to be read off: what its neighbours say is all there is.
            poses[latent], turns[latent] = agreed, 360.0 * (agreed % group.n) / group.n
            continue
        if agreed >= 0:
            poses[latent] = consistent(group, cosine, int(measured[latent]), agreed, stabilizer)
        turns[latent] = turn(group, cosine, int(poses[latent]), stabilizer)
    covered = np.zeros((len(references), group.order), dtype=np.bool_)
    near = (cosine_LG >= threshold) | (np.arange(group.order) == poses[:, None])
    np.logical_or.at(covered, labels[labels >= 0], near[labels >= 0])
    similarity = np.where(labels >= 0, np.where(of_reference == np.arange(len(labels)), 1.0, cosine_LG.max(1)), 0.0)
    return Families(
        labels=torch.from_numpy(labels),
        poses=torch.from_numpy(poses),
        turns=torch.from_numpy(turns).float(),
        mirrored=torch.from_numpy(group.reflections[poses]),
        similarity_to_reference=torch.from_numpy(similarity).float(),
        references=references.tolist(),
        threshold=threshold,
        method=method,
        cycle_error=torch.from_numpy(found.cycle_error).float(),
        cycle_degrees=torch.from_numpy(found.cycle_degrees).float(),
        covered=torch.from_numpy(covered),
        duplicate_of=torch.from_numpy(_duplicates(graph, stabilizers, group)),
        neighbours=graph,
    )


def _largest_first(head: IntArray, live: IntArray) -> tuple[IntArray, IntArray]:
    """Labels (−1 for those not live) and references, families by falling size, ties by reference."""
    heads, size = np.unique(head[live], return_counts=True)
    references = heads[np.argsort(-size, kind="stable")]
    rank = np.full(len(head), -1)
    rank[references] = np.arange(len(references))
    labels = np.full(len(head), -1)
    labels[live] = rank[head[live]]
    return labels, references


def _cosines(correlations: Correlations, W_dec_LGD: torch.Tensor, labels: IntArray, references: IntArray) -> FloatArray:
    """cos(d_l, R_h d_reference) of each live latent, float64 [L, G]."""
    group = correlations.group
    cosine_LG = np.zeros((len(labels), group.order))
    by_family = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[by_family], np.arange(len(references)), side="right")
    sizes = np.bincount(labels[labels >= 0], minlength=len(references))
    for family in np.flatnonzero(sizes > 1).tolist():
        members = by_family[ends[family] - sizes[family] : ends[family]]
        cosine_LG[members] = correlations.with_reference(torch.from_numpy(members), int(references[family]))
    alone = references[sizes == 1]
    for index in torch.from_numpy(alone).split(latent_step(max(len(alone), 1), group, W_dec_LGD.shape[2])):
        cosine_LG[index.numpy()] = autocorrelation(W_dec_LGD[index.to(W_dec_LGD.device)], group).double().cpu().numpy()
    return cosine_LG


def _duplicates(graph: NeighbourGraph, stabilizers: list[Stabilizer] | None, group: Group) -> IntArray:
    """`Families.duplicate_of`, by stars of the pairs that are in one pose."""
    same = np.eye(1, group.order, dtype=np.bool_).repeat(len(graph), 0)
    if stabilizers and len(graph):
        same = np.stack([stabilizer.mask for stabilizer in stabilizers])
    # As either latent has it: two readings of one stabilizer may differ.
    j = graph.neighbours
    mirror = np.asarray((same & group.reflections).any(1))
    alike = same[j, np.where(mirror[j], graph.rotations, graph.poses)]
    i = graph.rows()
    alike |= same[i, group.inverse[np.where(mirror[i], graph.rotations, graph.poses)]]
    head = stars(graph.subgraph(alike & (graph.similarity >= np.float32(DUPLICATE_SIMILARITY))))
    return np.where(head == np.arange(len(graph)), -1, head)
