"""Chirality: whether a latent is its own mirror image, and if not, whether its mirror image occurs too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from groupcc.analysis.families.dial import read_dial
from groupcc.analysis.families.neighbours import Correlations, NeighbourGraph, find_neighbours, live_latents
from groupcc.analysis.symmetry.interpolation import UPSAMPLING, coset_values, interpolate, periodic_peak
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.analysis.symmetry.symmetries import Symmetries
from groupcc.groups import PlanarGroup
from groupcc.groups.autocorrelation import latent_step

__all__ = ["CHIRALITIES", "Chirality", "Mirrors", "find_mirrors", "mirror_floor", "mirrors_in_poses"]

Chirality = Literal["achiral", "partner", "no partner", "unclear"]
CHIRALITIES: tuple[Chirality, ...] = ("achiral", "partner", "no partner", "unclear")
"""Every chirality, as `Mirrors.codes` numbers them; −1 stands for a dead latent and for a group without reflections."""

PAIR_UPSAMPLING = 4
"""Points between elements at which pairs are compared; the best pair's curve has `UPSAMPLING`."""


def mirror_floor(threshold: float) -> float:
    """Returns the least cosine, at an element, of two latents that are compared between the elements too."""
    return 0.5 * threshold


@dataclass(frozen=True, eq=False)
class Mirrors:
    """The mirror images of latents: what `find_mirrors` and `mirrors_in_poses` return.

    - `codes` int8 [L]: which of `CHIRALITIES`, −1 if nothing can be said.
    - `own` fp32 [L]: the largest C over the reflections, axes between elements included; NaN if nothing can be said.
    - `partner` int64 [L]: the latent that is the mirror image of a chiral one; −1 if there is none. A latent that has
      poses is its own partner, in its mirrored poses.
    - `similarity` fp32 [L]: max over reflections s of cos(d_partner, R_s d), at any axis; 0 without a partner.
    - `pose` int64 [L]: the element s nearest that maximum. `turn` fp32 [L]: degrees by which the latent's shape, once
      mirrored (x → −x), is turned counter-clockwise as seen; in [0, 360/m) if its stabilizer has m rotations.
    - `mirrored_share` fp32 [L]: of a chiral latent that has poses, with orbits, the share of firings that are in
      mirrored poses; else NaN.
    """

    codes: torch.Tensor
    own: torch.Tensor
    partner: torch.Tensor
    similarity: torch.Tensor
    pose: torch.Tensor
    turn: torch.Tensor
    mirrored_share: torch.Tensor


@torch.no_grad()
def find_mirrors(symmetries: Symmetries, threshold: float, graph: NeighbourGraph | None = None) -> Mirrors:
    """Returns the chirality of every latent of a dictionary in which each latent stands for itself.

    A latent is "achiral" if some mirror leaves it alone: C(s) ≥ 1 − tolerance at a reflection s, its axis at any angle
    (`interpolate`). A chiral latent l has a "partner" j if cos(d_j, R_s d_l) ≥ `threshold` for a reflection s at any
    angle, and j is more like l mirrored than like l turned: a rotated copy of a latent that nearly has a mirror is no
    partner. Of several partners the most similar counts, the lower index on ties. Else it has "no partner".

    C_n has no reflections: its orbits cannot tell a shape from its mirror image, and nothing is said.

    Partners are looked for among latents whose cosine at some element is `mirror_floor(threshold)` or more. `graph`:
    the neighbours (`find_neighbours`) of the latents that are not dead, at that floor or a lower one; None makes it.
    Memory: one more copy of the decoder, and bounded blocks. Deterministic on the CPU.
    """
    mirrors, chiral = _chiral(symmetries)
    if chiral.any():
        _search(mirrors, symmetries, chiral, threshold, graph)
    return mirrors


@torch.no_grad()
def mirrors_in_poses(
    symmetries: Symmetries, pose_counts: torch.Tensor | None, pose_parts: torch.Tensor | None = None
) -> Mirrors:
    """Returns the chirality of latents that have poses.

    Such a dictionary holds R_s d for every reflection, so that a partner in it says nothing. What counts is whether the
    data shows it. The firings by pose, `pose_counts` [L, G], and by part of the photographs, `pose_parts` [B, L, G],
    are read as orientation dials (`read_dial`): the mirror image is missing if all mirrored poses, or all unmirrored
    ones, lie in a gap. "unclear": too few firings could tell, or none are given. "achiral" is as `find_mirrors` has it.
    """
    mirrors, chiral = _chiral(symmetries)
    group, latents = symmetries.group, chiral.nonzero()[:, 0]
    mirrors.partner[chiral] = latents
    mirrors.similarity[chiral] = 1.0
    mirrors.pose[chiral] = group.n
    for latent in latents.tolist():
        code: Chirality = "unclear"
        if pose_counts is not None:
            counts_G = pose_counts[latent].numpy()
            mirrors.mirrored_share[latent] = float(counts_G[group.reflections].sum() / max(counts_G.sum(), 1))
            parts_BG = None if pose_parts is None else pose_parts[:, latent].numpy()
            dial = read_dial(counts_G, group, symmetries.stabilizers[latent].mask, parts_BG)
            if dial.kind != "few":
                missing = any(ring.gaps.all() for ring in dial.rings)
                code = "no partner" if missing else "partner"
        mirrors.codes[latent] = CHIRALITIES.index(code)
    return mirrors


def _chiral(symmetries: Symmetries) -> tuple[Mirrors, torch.Tensor]:
    """Returns mirrors without a partner for any latent, and which latents are chiral, bool [L]."""
    L = len(symmetries.autocorrelation)
    mirrors = Mirrors(
        codes=torch.full((L,), -1, dtype=torch.int8),
        own=torch.full((L,), torch.nan),
        partner=torch.full((L,), -1, dtype=torch.int64),
        similarity=torch.zeros(L),
        pose=torch.zeros(L, dtype=torch.int64),
        turn=torch.zeros(L),
        mirrored_share=torch.full((L,), torch.nan),
    )
    _, reflections = coset_values(symmetries.autocorrelation.double(), symmetries.group)
    if reflections is None:
        return mirrors, torch.zeros(L, dtype=torch.bool)
    live = symmetries.live
    mirrors.own[live] = interpolate(reflections, UPSAMPLING).amax(1).float()[live]
    chiral = live & (mirrors.own < 1.0 - symmetries.tolerance)
    mirrors.codes[live] = CHIRALITIES.index("achiral")
    mirrors.codes[chiral] = CHIRALITIES.index("no partner")
    return mirrors, chiral


def _search(
    mirrors: Mirrors, symmetries: Symmetries, chiral: torch.Tensor, threshold: float, graph: NeighbourGraph | None
) -> None:
    W_LGD, group, dead = symmetries.W_dec_LGD, symmetries.group, symmetries.dead
    if graph is None:
        graph = find_neighbours(W_LGD, group, floor=mirror_floor(threshold), dead=dead)
    correlations = Correlations(W_LGD, group, live_latents(W_LGD, dead))
    latents = chiral.nonzero()[:, 0]
    partner = torch.full((len(latents),), -1, dtype=torch.int64)
    curves = torch.zeros(len(latents), group.n)
    step = latent_step(len(graph), group, W_LGD.shape[2])
    for row, latent in enumerate(latents.tolist()):
        others = torch.from_numpy(graph.neighbours[graph.of(latent)].astype(np.int64))
        best = 0.0
        for part in others.split(step) if len(others) else ():
            candidate = _best_mirror(correlations, part, latent, threshold)
            if candidate is not None and candidate[0] > best:
                best, partner[row], curves[row] = candidate
    has = partner >= 0
    latents, curves = latents[has], interpolate(curves[has], UPSAMPLING)
    _, position = periodic_peak(curves)
    mirrors.codes[latents] = CHIRALITIES.index("partner")
    mirrors.partner[latents] = partner[has]
    mirrors.similarity[latents] = curves.amax(1).clamp_max(1.0)
    for latent, steps in zip(latents.tolist(), (position / UPSAMPLING).tolist(), strict=True):
        steps = _first_turn(steps, group, symmetries.stabilizers[latent])
        mirrors.pose[latent] = group.n + round(steps) % group.n
        mirrors.turn[latent] = steps * 360.0 / group.n


def _first_turn(steps: float, group: PlanarGroup, stabilizer: Stabilizer) -> float:
    """Returns the smallest of the equivalent turns, in steps of 360°/n."""
    period = group.n / int(np.count_nonzero(stabilizer.mask & ~group.reflections))
    steps %= period
    return 0.0 if period - steps < 1e-3 else steps  # a hair below the period is the same turn as 0


def _best_mirror(
    correlations: Correlations, others: torch.Tensor, latent: int, threshold: float
) -> tuple[float, int, torch.Tensor] | None:
    """Returns of `others` the one most like the mirror image of `latent`, the lowest on ties: how alike they are, which
    it is, and its cosines at the reflections [n]. None if no one of them counts."""
    n = correlations.group.n
    cosine = torch.from_numpy(correlations.with_reference(others, latent)).float()
    near = cosine[:, n:].amax(1) >= mirror_floor(threshold)
    others, cosine = others[near], cosine[near]
    mirrored = interpolate(cosine[:, n:], PAIR_UPSAMPLING).amax(1)
    counts = (mirrored >= threshold) & (mirrored > interpolate(cosine[:, :n], PAIR_UPSAMPLING).amax(1))
    if not counts.any():
        return None
    others, cosine, mirrored = others[counts], cosine[counts], mirrored[counts]
    best = int((mirrored >= mirrored.amax()).to(torch.uint8).argmax())
    return float(mirrored[best]), int(others[best]), cosine[best, n:]
