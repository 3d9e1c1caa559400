"""Chirality: whether a latent is its own mirror image, and if not whether its mirror image is in the dictionary too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from groupcc.analysis.families.dial import read_dial
from groupcc.analysis.families.neighbours import Correlations, NeighbourGraph, find_neighbours, live_latents
from groupcc.analysis.symmetry.blocks import latent_step
from groupcc.analysis.symmetry.interpolation import UPSAMPLING, coset_values, interpolate, periodic_peak
from groupcc.analysis.symmetry.stabilizers import Stabilizer
from groupcc.groups import Group

__all__ = ["CHIRALITIES", "Chirality", "Mirrors", "find_mirrors", "mirror_floor"]

Chirality = Literal["achiral", "partner", "no partner", "unclear"]
CHIRALITIES: tuple[Chirality, ...] = ("achiral", "partner", "no partner", "unclear")
"""Every chirality, as `Mirrors.codes` numbers them; −1 stands for a dead latent and for a group without reflections."""

PAIR_UPSAMPLING = 4
"""Points between elements at which pairs are compared; the best pair's curve has `UPSAMPLING`."""


def mirror_floor(threshold: float) -> float:
    """Least cosine, at an element, of two latents that are compared between the elements: half the threshold."""
    return 0.5 * threshold


@dataclass(frozen=True, eq=False)
class Mirrors:
    """The mirror images of latents: what `find_mirrors` returns.

    - `codes` int8 [L]: which of `CHIRALITIES`, −1 where nothing can be said.
    - `own` fp32 [L]: the largest C over the reflections, axes between elements included; NaN where nothing can be said.
    - `partner` int64 [L]: the latent that is the mirror image of a chiral one; −1 where there is none. Of a tied
      crosscoder the base latent itself, in its mirrored poses.
    - `similarity` fp32 [L]: max over reflections s of cos(d_partner, R_s d), at any axis; 0 without a partner.
    - `pose` int64 [L]: the element s nearest that maximum. `turn` fp32 [L]: degrees by which the latent's shape, once
      mirrored (x → −x), is turned counter-clockwise as seen; in [0, 360/m) where its stabilizer has m rotations.
    - `mirrored_share` fp32 [L]: of a tied crosscoder, with orbits: share of a chiral latent's firings that are in
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
def find_mirrors(
    W_dec_LGD: torch.Tensor,
    C_LG: torch.Tensor,
    group: Group,
    stabilizers: list[Stabilizer],
    dead: torch.Tensor,
    *,
    tolerance: float,
    threshold: float,
    tied: bool = False,
    pose_counts: torch.Tensor | None = None,
    graph: NeighbourGraph | None = None,
) -> Mirrors:
    """Chirality of every latent.

    "achiral": some mirror leaves the latent alone, C(s) ≥ 1 − `tolerance` at a reflection s, its axis at any angle
    (`interpolate`). A chiral latent l has a "partner" j where cos(d_j, R_s d_l) ≥ `threshold` for a reflection s at any
    angle, and where j is more like l mirrored than like l turned: a rotated copy of a latent that nearly has a mirror
    is no partner. Of several the most similar, the lower index on ties. Else "no partner".

    A tied dictionary holds R_s d for every reflection, so there a partner says nothing. It counts where the data shows
    it: `pose_counts` [L, G] are read as orientation dials (`read_dial`), and the mirror image is missing where all
    mirrored poses, or all unmirrored ones, lie in a gap. "unclear" where too few firings could tell or none are given.

    C_n has no reflections: its orbits cannot tell a shape from its mirror image. `W_dec_LGD` as `check_decoder` returns
    it, `C_LG` its autocorrelation, `dead` bool [L]. Partners are looked for among those that are alike at the elements,
    to `mirror_floor(threshold)` at least: in `graph`, as `find_neighbours` made it of the latents not in `dead` at that
    floor or a lower one, or else in one made for it; their cosines are then interpolated. Memory: one more copy of the
    decoder, and bounded blocks. Deterministic on the CPU.
    """
    L = len(C_LG)
    found = Mirrors(
        codes=torch.full((L,), -1, dtype=torch.int8),
        own=torch.full((L,), torch.nan),
        partner=torch.full((L,), -1, dtype=torch.int64),
        similarity=torch.zeros(L),
        pose=torch.zeros(L, dtype=torch.int64),
        turn=torch.zeros(L),
        mirrored_share=torch.full((L,), torch.nan),
    )
    _, reflections = coset_values(C_LG.double().cpu(), group)
    if reflections is None:
        return found
    live = ~dead.cpu()
    found.own[live] = interpolate(reflections, UPSAMPLING).amax(1).float()[live]
    chiral = live & (found.own < 1.0 - tolerance)
    found.codes[live] = CHIRALITIES.index("achiral")
    found.codes[chiral] = CHIRALITIES.index("no partner")
    if tied:
        _read_poses(found, chiral, group, stabilizers, pose_counts)
    else:
        _search(found, W_dec_LGD, chiral, dead, group, stabilizers, threshold, graph)
    return found


def _read_poses(
    found: Mirrors, chiral: torch.Tensor, group: Group, stabilizers: list[Stabilizer], counts: torch.Tensor | None
) -> None:
    found.partner[chiral] = chiral.nonzero()[:, 0]
    found.similarity[chiral] = 1.0
    found.pose[chiral] = group.n
    for latent in chiral.nonzero()[:, 0].tolist():
        code: Chirality = "unclear"
        if counts is not None:
            counts_G = counts[latent].numpy()
            found.mirrored_share[latent] = float(counts_G[group.reflections].sum() / max(counts_G.sum(), 1))
            dial = read_dial(counts_G, group, stabilizers[latent].mask)
            if dial.kind != "few":
                missing = any(ring.gaps.all() for ring in dial.rings)
                code = "no partner" if missing else "partner"
        found.codes[latent] = CHIRALITIES.index(code)


def _search(
    found: Mirrors,
    W_dec_LGD: torch.Tensor,
    chiral: torch.Tensor,
    dead: torch.Tensor,
    group: Group,
    stabilizers: list[Stabilizer],
    threshold: float,
    graph: NeighbourGraph | None,
) -> None:
    latents = chiral.nonzero()[:, 0]
    if len(latents) == 0:
        return
    if graph is None:
        graph = find_neighbours(W_dec_LGD, group, floor=mirror_floor(threshold), dead=dead)
    correlations = Correlations(W_dec_LGD, group, live_latents(W_dec_LGD, dead))
    partner = torch.full((len(latents),), -1, dtype=torch.int64)
    curves = torch.zeros(len(latents), group.n)
    step = latent_step(len(graph), group, W_dec_LGD.shape[2])
    for row, latent in enumerate(latents.tolist()):
        others = torch.from_numpy(graph.neighbours[graph.of(latent)].astype(np.int64))
        if len(others) == 0:
            continue
        found_in = [_best_mirror(correlations, part, latent, threshold) for part in others.split(step)]
        best = 0.0
        for mirrored, other, curve in (one for one in found_in if one is not None):
            if mirrored > best:
                best, partner[row], curves[row] = mirrored, other, curve
    has = partner >= 0
    latents, curves = latents[has], interpolate(curves[has], UPSAMPLING)
    _, position = periodic_peak(curves)
    found.codes[latents] = CHIRALITIES.index("partner")
    found.partner[latents] = partner[has]
    found.similarity[latents] = curves.amax(1).clamp_max(1.0)
    for latent, steps in zip(latents.tolist(), (position / UPSAMPLING).tolist(), strict=True):
        mask = stabilizers[latent].mask
        period = group.n / int(np.count_nonzero(mask & ~group.reflections))
        steps %= period
        steps = 0.0 if period - steps < 1e-3 else steps  # a hair below the period is the same turn as 0
        found.pose[latent] = group.n + round(steps) % group.n
        found.turn[latent] = steps * 360.0 / group.n


def _best_mirror(
    correlations: Correlations, others: torch.Tensor, latent: int, threshold: float
) -> tuple[float, int, torch.Tensor] | None:
    """Of `others` the one most like the mirror image of `latent`, the lowest on ties: how like it is, which it is, and
    its cosines at the reflections [n]; None where none counts."""
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
