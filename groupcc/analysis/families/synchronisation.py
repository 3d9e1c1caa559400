"""Synchronised poses: the relative poses of a family's members, made consistent around the family."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.analysis.families.neighbours import NeighbourGraph
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import BoolArray, FloatArray, IntArray

__all__ = ["Synchronised", "synchronise"]

MAX_ROUNDS = 100

MAX_RELAXED_ENTRIES = 1 << 22
"""Families with more pairs than this (2,000 latents all alike) go without eigenvectors."""

MAX_DENSE = 512
"""Members of a family up to which its eigenvectors are computed by a dense solver."""


@dataclass(frozen=True, eq=False)
class Synchronised:
    """What `synchronise` returns.

    - `poses` int64 [L]: of each member the smallest element of its pose; −1 if no pair links it to the reference.
    - `cycle_error` float64 [F]: the share of the family's pairs whose measured pose differs from that of the two
      synchronised poses by more than one step of 360°/n, or by a mirror. NaN if the pairs close no cycle.
    - `cycle_degrees` float64 [F]: by how many degrees they differ on average, 180 if by a mirror. NaN likewise.
    """

    poses: IntArray
    cycle_error: FloatArray
    cycle_degrees: FloatArray


def synchronise(
    graph: NeighbourGraph,
    labels: IntArray,
    references: IntArray,
    group: PlanarGroup,
    stabilizers: list[Stabilizer] | None,
    measured: IntArray,
) -> Synchronised:
    """Returns the poses p_l of each family that agree best with the poses h_ij measured between its members.

    PlanarGroup synchronisation (Singer 2011). If d_i = R_{p_i} d_ref and d_j = R_{p_j} d_ref, then d_i ≈ R_h d_j says
    p_i H = h p_j H, H the reference's stabilizer, the product in this order. Example C_8 with trivial H: p_j = 2 and
    h_ij = 3 propose p_i = 5; a neighbour k with p_k = 6 and h_ik = 0 proposes 6, one step away.

    It is solved in G/C_m, C_m the rotations in H: a normal subgroup, so that products are those of D_{n/m}. If H has a
    mirror, it is solved among the rotations alone, from `NeighbourGraph.rotations`. What is maximised is
    Σ similarity_ij κ over the pairs of a family, κ = 1 if p_i and h_ij p_j agree, ½ at one step, else 0.

    It starts from the best of three: the poses along the maximum spanning tree; those `measured` against the reference
    (int64 [L]); and those of Singer's relaxation, which are the two leading eigenvectors of the matrix of blocks
    similarity_ij ρ(h_ij), rounded to elements, ρ the plane's rotations and reflections. Then each member moves to where
    its neighbours' votes put it, as long as that helps. The reference stays at the identity.

    `labels` int64 [L] (−1: in no family), `references` int64 [F]. Deterministic.
    """
    problem = _Problem(graph, labels, references, group, stabilizers)
    poses = problem.along_the_tree()
    reached = poses[0] >= 0
    problem.keep(problem.pairs, reached[problem.i])
    r, s = problem.reduce(measured)
    for other in ((np.where(reached, r, -1), np.where(reached, s, -1)), problem.relaxed(poses)):
        poses = problem.better(other, poses, problem.agreement(other) > problem.agreement(poses))
    poses = problem.refine(poses)
    return Synchronised(np.where(reached, poses[0] + group.n * poses[1], -1), *problem.errors(poses))


Poses = tuple[IntArray, IntArray]
"""Steps r and mirrors s of each latent's pose, int64 [L] each; −1 if it has none."""


class _Problem:
    """The pairs inside families, with their poses as (steps modulo the family's period, mirrored)."""

    def __init__(
        self,
        graph: NeighbourGraph,
        labels: IntArray,
        references: IntArray,
        group: PlanarGroup,
        stabilizers: list[Stabilizer] | None,
    ) -> None:
        self.group, self.labels, self.references = group, labels, references
        masks = np.stack([stabilizers[i].mask for i in references]) if stabilizers and len(references) else None
        if masks is None:
            periods, mirror = np.full(len(references), group.n), np.zeros(len(references)) > 0
        else:
            periods = group.n // (masks & ~group.reflections).sum(1)
            mirror = np.asarray((masks & group.reflections).any(1))
        # One more for latents in no family, which −1 reads.
        self.period = np.append(periods, 1)[labels]
        self.mirror = np.append(mirror, False)[labels]
        rows = graph.rows()
        self.keep(graph, (labels[rows] == labels[graph.neighbours]) & (labels[rows] >= 0))

    def keep(self, graph: NeighbourGraph, entries: BoolArray) -> None:
        """Takes these entries of a graph for the pairs."""
        self.pairs = graph.subgraph(entries)
        self.i, self.j = self.pairs.rows(), self.pairs.neighbours.astype(np.int64)
        self.weight = self.pairs.similarity.astype(np.float64)
        h = np.where(self.mirror[self.i], self.pairs.rotations, self.pairs.poses).astype(np.int64)
        self.h_r, self.h_s = h % self.group.n % self.period[self.i], h // self.group.n

    def reduce(self, poses: IntArray) -> Poses:
        """Returns elements as poses; a latent that has a mirror of its own gets a rotation."""
        return poses % self.group.n % self.period, np.where(self.mirror, 0, poses // self.group.n)

    def along_the_tree(self) -> Poses:
        from scipy.sparse.csgraph import minimum_spanning_tree

        # All weights are positive: a zero would read as no entry.
        tree = minimum_spanning_tree(self.pairs.matrix(1.001 - np.minimum(self.weight, 1.0))).tocoo()
        L = len(self.labels)
        chosen = np.isin(self.i * L + self.j, np.concatenate([tree.row * L + tree.col, tree.col * L + tree.row]))
        i, j, h_r, h_s = self.i[chosen], self.j[chosen], self.h_r[chosen], self.h_s[chosen]
        r, s = np.full(L, -1), np.full(L, -1)
        r[self.references], s[self.references] = 0, 0
        while len(i):
            ready = r[j] >= 0
            if not ready.any():
                break
            a, b = i[ready], j[ready]
            new = r[a] < 0
            a, b = a[new], b[new]
            r[a] = (h_r[ready][new] + np.where(h_s[ready][new] == 1, -1, 1) * r[b]) % self.period[a]
            s[a] = h_s[ready][new] ^ s[b]
            i, j, h_r, h_s = i[~ready], j[~ready], h_r[~ready], h_s[~ready]
        return r, s

    def relaxed(self, poses: Poses) -> Poses:
        """Returns the poses by the leading eigenvectors in families whose pairs close a cycle, in others `poses`."""
        r, s = poses[0].copy(), poses[1].copy()
        by_family = np.argsort(self.labels[self.i], kind="stable")
        ends = np.bincount(self.labels[self.i], minlength=len(self.references)).cumsum()
        place = np.zeros(len(self.labels), dtype=np.int64)
        for family, entries in enumerate(np.split(by_family, ends[:-1])):
            members, rows = np.unique(self.i[entries], return_inverse=True)
            if len(members) == 0 or not 2 * len(members) <= len(entries) <= MAX_RELAXED_ENTRIES:
                continue
            place[members] = np.arange(len(members))
            angle = 2 * np.pi * self.h_r[entries] / self.period[members[0]]
            cos, sin, mirror = np.cos(angle), np.sin(angle), np.where(self.h_s[entries] == 1, -1.0, 1.0)
            # Rotate after mirroring x → −x, as the group's elements do.
            blocks = np.stack([np.stack([mirror * cos, -sin], -1), np.stack([mirror * sin, cos], -1)], -2)
            X = _leading_pair(self.weight[entries, None, None] * blocks, rows, place[self.j[entries]], len(members))
            at_reference = X @ X[place[self.references[family]]].T  # ρ(p_i), to a factor and to noise
            a, b = at_reference[:, :, 0].T, at_reference[:, :, 1].T
            # Against a rotation by φ: cos φ (a₀ + b₁) + sin φ (a₁ − b₀); with the mirror a changes its sign.
            straight, flipped = np.array([a[0] + b[1], a[1] - b[0]]), np.array([b[1] - a[0], -a[1] - b[0]])
            mirrored = (np.hypot(*flipped) > np.hypot(*straight)) & bool(self.h_s[entries].any())
            cosine, sine = np.where(mirrored, flipped, straight)
            steps = np.rint(np.arctan2(sine, cosine) / (2 * np.pi) * self.period[members[0]])
            r[members], s[members] = steps.astype(np.int64) % self.period[members[0]], mirrored
        return r, s

    def proposed(self, poses: Poses) -> Poses:
        """Returns h_ij p_j of each entry."""
        r, s = poses
        turned = np.where(self.h_s == 1, -1, 1) * r[self.j]
        return (self.h_r + turned) % self.period[self.i], self.h_s ^ s[self.j]

    def differences(self, poses: Poses) -> tuple[IntArray, BoolArray]:
        """Returns the steps between p_i and h_ij p_j of each entry, and whether a mirror lies between."""
        r, s = self.proposed(poses)
        period = self.period[self.i]
        apart = (r - poses[0][self.i]) % period
        return np.minimum(apart, period - apart), s != poses[1][self.i]

    def agreement(self, poses: Poses) -> FloatArray:
        """Returns Σ similarity κ of each family, [F]."""
        steps, mirror = self.differences(poses)
        kernel = np.where(mirror, 0.0, np.select([steps == 0, steps == 1], [1.0, 0.5], 0.0))
        return np.bincount(self.labels[self.i], self.weight * kernel, minlength=len(self.references)).astype(float)

    def better(self, one: Poses, other: Poses, take: BoolArray) -> Poses:
        """Returns `one` in the families that `take` (bool [F]) says, else `other`."""
        of_latent = np.append(take, False)[self.labels]
        return np.where(of_latent, one[0], other[0]), np.where(of_latent, one[1], other[1])

    def refine(self, poses: Poses) -> Poses:
        parity = np.arange(len(self.labels)) % 2
        agreement = self.agreement(poses)
        for _ in range(MAX_ROUNDS):
            before = agreement
            voted = self.vote(poses)
            # All at once may chase one another round: then the even and the odd ones in turn.
            for move in (parity >= 0, parity == 0, parity == 1):
                tried = np.where(move, voted[0], poses[0]), np.where(move, voted[1], poses[1])
                reached = self.agreement(tried)
                gains = reached > agreement + 1e-9 * (1.0 + agreement)
                poses = self.better(tried, poses, gains)
                agreement = np.where(gains, reached, agreement)
            if (agreement == before).all():
                break
        return poses

    def vote(self, poses: Poses) -> Poses:
        """Returns where the neighbours of each latent put it; on ties it stays, or goes to the smallest."""
        L, n = len(self.labels), self.group.n
        r, s = self.proposed(poses)
        votes = np.bincount((2 * self.i + s) * n + r, self.weight, minlength=2 * L * n).reshape(L, 2, n)
        steps = np.arange(n)
        period = self.period[:, None]
        left, right = (np.take_along_axis(votes, ((steps + k) % period)[:, None], 2) for k in (-1, 1))
        score = np.where((steps < period)[:, None], votes + 0.5 * (left + right), -1.0)
        flat = score.reshape(L, 2 * n)
        held = np.take_along_axis(flat, np.maximum(poses[0] + n * poses[1], 0)[:, None], 1)[:, 0]
        best = flat.argmax(1)
        moves = (flat.max(1) > held + 1e-9) & (poses[0] >= 0)
        moves[self.references] = False
        return np.where(moves, best % n, poses[0]), np.where(moves, best // n, poses[1])

    def errors(self, poses: Poses) -> tuple[FloatArray, FloatArray]:
        steps, mirror = self.differences(poses)
        once = self.i < self.j
        family = self.labels[self.i][once]
        wrong = (mirror | (steps > 1))[once]
        degrees = np.where(mirror, 180.0, steps * 360.0 / self.group.n)[once]
        F = len(self.references)
        count = np.bincount(family, minlength=F)
        members = np.bincount(self.labels[self.labels >= 0], minlength=F)
        cycles = count >= members
        shares = (np.bincount(family, values, minlength=F) / np.maximum(count, 1) for values in (wrong, degrees))
        error, apart = (np.where(cycles & (count > 0), share, np.nan) for share in shares)
        return error, apart


def _leading_pair(blocks_E22: FloatArray, i: IntArray, j: IntArray, members: int) -> FloatArray:
    """Returns the two leading eigenvectors of the symmetric matrix of these blocks, as [members, 2, 2]."""
    from scipy.sparse import coo_array
    from scipy.sparse.linalg import ArpackError, eigsh

    rows, columns = (2 * i[:, None, None] + [[0], [1]]), (2 * j[:, None, None] + [[0, 1]])
    where = np.broadcast_arrays(rows, columns)
    matrix = coo_array((blocks_E22.ravel(), tuple(w.ravel() for w in where)), shape=(2 * members,) * 2).tocsr()
    if members <= MAX_DENSE:
        vectors = np.linalg.eigh(matrix.toarray())[1][:, -2:]
    else:
        try:
            vectors = eigsh(matrix, k=2, which="LA", v0=np.ones(2 * members), tol=1e-4)[1]
        except ArpackError:  # no convergence: any answer is only a start
            vectors = np.ones((2 * members, 2))
    return np.asarray(vectors.reshape(members, 2, 2))
