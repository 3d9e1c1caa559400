"""Families: latents that are translates of one another, and their relative poses."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from groupcc.analysis.families.clustering import cluster, stars
from groupcc.analysis.families.member_poses import best_equivalent, consistent, turn
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, Correlations, NeighbourGraph, live_latents
from groupcc.analysis.families.synchronisation import Synchronised, synchronise
from groupcc.analysis.options import FAMILY_THRESHOLD, FamilyMethod, check_family_method
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray, IntArray
from groupcc.groups.autocorrelation import autocorrelation, latent_step

__all__ = ["DUPLICATE_SIMILARITY", "Families", "find_families", "given_families"]

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

    - `labels` int64 [L]: family of each latent. A latent unlike all others is a family of one. −1 for dead and spare
      latents, which are left out.
    - `references`: one latent for each family, its best connected one. The others are posed relative to it.
    - `poses` int64 [L]: h with d_l ≈ R_h d_reference, so member l looks like the reference's shape transformed by h.
      Of the equivalent elements hH (H the reference's stabilizer) it is the most similar, the smallest on ties, and
      always a rotation if the reference has a mirror of its own. Poses are consistent around the family: if what the
      other members say outweighs what was measured against the reference, theirs counts (see `synchronise`).
    - `turns` float32 [L]: the pose as an angle in degrees, counter-clockwise as seen, by which the reference's shape
      is turned, after mirroring x → −x if `mirrored` (bool [L]). Interpolated between the elements, so within about a
      degree for smooth shapes. In [0, 360/m) if the reference's stabilizer has m rotations; 0 if it has all.
    - `similarity_to_reference` float32 [L]: max_h cos(d_l, R_h d_reference); 0 for latents that are left out. At least
      `threshold` if `method` is "star".
    - `method`: how they were clustered, one of `FAMILY_METHODS`.
    - `cycle_error`, `cycle_degrees` float32 [families]: share of the pairs of a family whose own relative pose differs
      from that of their `poses` by more than a step of 360°/n, and the mean difference. NaN if nothing can differ.
    - `covered` bool [families, G]: whether the reference's shape, transformed by h, has a detector: a member whose
      cosine with R_h d_reference reaches `threshold`, or whose pose it is. See `Atlas.coverage`.
    - `duplicate_of` int64 [L]: the latent that has the same shape in the same pose (similarity at least
      `DUPLICATE_SIMILARITY` at an element of its stabilizer), so that one of the two is not needed; −1 if none has.
      Rotated copies are no duplicates.
    - `neighbours`: the graph that was clustered; not kept in an atlas's file.
    - `atoms` int64 [L]: if latents have poses, the distinct poses |G|/|H| that each latent stands for, 0 for dead ones.
      None if a latent stands for itself.
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
        """Returns the latents of a family by rising turn, mirrored ones after the others, ties by index."""
        members = (self.labels == family).nonzero()[:, 0].tolist()
        return sorted(members, key=lambda latent: (bool(self.mirrored[latent]), float(self.turns[latent]), latent))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns the tensors that are there, by the names that an atlas saves them under."""
        fields = {file: getattr(self, name) for file, name in FILE_NAMES.items()}
        return {name: tensor for name, tensor in fields.items() if tensor is not None}

    @classmethod
    def from_tensors(
        cls, tensors: dict[str, torch.Tensor], references: list[int], threshold: float, method: FamilyMethod
    ) -> Families:
        """Returns families from what `tensors` returned, among other tensors, and from what has no tensor."""
        fields: dict[str, Any] = {name: tensors.get(file) for file, name in FILE_NAMES.items()}
        missing = [file for file, name in FILE_NAMES.items() if name in REQUIRED and fields[name] is None]
        if missing:
            raise KeyError(missing[0])
        return cls(references=references, threshold=threshold, method=method, **fields)

    def fingerprint(self) -> str:
        """Returns a hex SHA-256 of which latent is in which family. Equal families in equal order have equal ones."""
        return hashlib.sha256(self.labels.numpy().astype("<i8").tobytes()).hexdigest()

    @property
    def sizes(self) -> list[int]:
        """Number of members of each family; of atoms, if latents have poses."""
        live = self.labels >= 0
        weights = None if self.atoms is None else self.atoms[live].double()
        return torch.bincount(self.labels[live], weights, minlength=len(self.references)).long().tolist()


def given_families(group: PlanarGroup, stabilizers: list[Stabilizer], threshold: float) -> Families:
    """Returns the families of latents that have poses, which need no search: each live latent with all its poses.

    Its atoms R_h d are equal for h in one coset of its stabilizer H, so |G|/|H| are distinct. The largest family comes
    first, ties by latent. `threshold` is only noted: whether two latents have one shape is another question, which
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
    group: PlanarGroup,
    *,
    threshold: float = FAMILY_THRESHOLD,
    dead: torch.Tensor | None = None,
    stabilizers: list[Stabilizer] | None = None,
    method: FamilyMethod = "star",
    graph: NeighbourGraph | None = None,
) -> Families:
    """Groups latents by the similarity max_h cos(d_i, R_h d_j), and says in which pose each is.

    All pairs are compared once (`find_neighbours`). Those with a similarity of at least `NEIGHBOUR_FLOOR`, or
    `threshold` if that is lower, make a graph, off which all else is read. `method` says how it is clustered, see
    `cluster`: by default in stars, so that every member is like its reference. Connected components chain: on a trained
    net they joined edges to others with a cosine of 0.06.

    Each member's pose is measured against its reference, and made consistent around the family (`synchronise`).
    Latents in `dead` [L] are left out. `stabilizers` (one a latent) tell which poses are equivalent; None takes every
    latent for C1. `graph`: the neighbours of these latents or more, at that floor or a lower one, if it is there
    already. Memory is one more copy of the decoder, the graph, and bounded blocks. Deterministic on the CPU.

    Raises:
        ArgumentError: another method.
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
    cosine_LG = _cosines(correlations, W_dec_LGD, labels, references)
    poses, turns, agreed = _poses(graph, labels, references, cosine_LG, group, stabilizers)
    covered = np.zeros((len(references), group.order), dtype=np.bool_)
    near = (cosine_LG >= threshold) | (np.arange(group.order) == poses[:, None])
    np.logical_or.at(covered, labels[labels >= 0], near[labels >= 0])
    is_reference = np.append(references, -1)[labels] == np.arange(len(labels))
    similarity = np.where(labels >= 0, np.where(is_reference, 1.0, cosine_LG.max(1)), 0.0)
    return Families(
        labels=torch.from_numpy(labels),
        poses=torch.from_numpy(poses),
        turns=torch.from_numpy(turns).float(),
        mirrored=torch.from_numpy(group.reflections[poses]),
        similarity_to_reference=torch.from_numpy(similarity).float(),
        references=references.tolist(),
        threshold=threshold,
        method=method,
        cycle_error=torch.from_numpy(agreed.cycle_error).float(),
        cycle_degrees=torch.from_numpy(agreed.cycle_degrees).float(),
        covered=torch.from_numpy(covered),
        duplicate_of=torch.from_numpy(_duplicates(graph, stabilizers, group)),
        neighbours=graph,
    )


def _poses(
    graph: NeighbourGraph,
    labels: IntArray,
    references: IntArray,
    cosine_LG: FloatArray,
    group: PlanarGroup,
    stabilizers: list[Stabilizer] | None,
) -> tuple[IntArray, FloatArray, Synchronised]:
    """Returns each latent's pose and turn relative to its reference, and what its neighbours agree on."""
    of_reference = np.append(references, -1)[labels]
    reference_stabilizer = [stabilizers[i] if stabilizers and i >= 0 else None for i in of_reference.tolist()]
    poses, turns = np.zeros(len(labels), dtype=np.int64), np.zeros(len(labels))
    others = np.flatnonzero((labels >= 0) & (of_reference != np.arange(len(labels)))).tolist()
    for latent in others:
        poses[latent] = best_equivalent(group, cosine_LG[latent], reference_stabilizer[latent])
    synchronised = synchronise(graph, labels, references, group, stabilizers, poses.copy())
    for latent in others:
        cosine, stabilizer = cosine_LG[latent], reference_stabilizer[latent]
        agreed = int(synchronised.poses[latent])
        if agreed >= 0 and cosine.max() < graph.floor:
            # Too unlike its reference for anything to be read off: what its neighbours say is all there is.
            poses[latent], turns[latent] = agreed, 360.0 * (agreed % group.n) / group.n
            continue
        if agreed >= 0:
            poses[latent] = consistent(group, cosine, int(poses[latent]), agreed, stabilizer)
        turns[latent] = turn(group, cosine, int(poses[latent]), stabilizer)
    return poses, turns, synchronised


def _largest_first(head: IntArray, live: IntArray) -> tuple[IntArray, IntArray]:
    """Returns labels (−1 for latents not live) and references, families by falling size, ties by reference."""
    heads, size = np.unique(head[live], return_counts=True)
    references = heads[np.argsort(-size, kind="stable")]
    rank = np.full(len(head), -1)
    rank[references] = np.arange(len(references))
    labels = np.full(len(head), -1)
    labels[live] = rank[head[live]]
    return labels, references


def _cosines(correlations: Correlations, W_dec_LGD: torch.Tensor, labels: IntArray, references: IntArray) -> FloatArray:
    """Returns cos(d_l, R_h d_reference) of each live latent, float64 [L, G]."""
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


def _duplicates(graph: NeighbourGraph, stabilizers: list[Stabilizer] | None, group: PlanarGroup) -> IntArray:
    """Returns `Families.duplicate_of`: stars of the pairs that are in one pose."""
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
