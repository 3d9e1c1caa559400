"""Chirality: whether a latent is its own mirror image, and if not whether its mirror image is in the dictionary too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from groupcc.analysis.dial import read_dial
from groupcc.analysis.fourier import GroupFourier, units
from groupcc.analysis.interpolation import UPSAMPLING, coset_values, interpolate, periodic_peak
from groupcc.analysis.similarity import latent_step
from groupcc.analysis.stabilizers import Stabilizer
from groupcc.groups import Group

__all__ = ["CHIRALITIES", "Chirality", "Mirrors", "find_mirrors"]

Chirality = Literal["achiral", "partner", "no partner", "unclear"]
CHIRALITIES: tuple[Chirality, ...] = ("achiral", "partner", "no partner", "unclear")
"""Every chirality, as `Mirrors.codes` numbers them; −1 stands for a dead latent and for a group without reflections."""

MAX_PAIR_NUMBERS = 1 << 22
"""Cosines held at once: latents × latents × |G| (16 MiB in fp32)."""

PAIR_UPSAMPLING = 4
"""Points between elements at which pairs are compared; the best pair's curve has `UPSAMPLING`."""


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
    it, `C_LG` its autocorrelation, `dead` bool [L]. Of the chiral latents with all live ones cosines are computed in
    blocks through the Fourier transform on the group, and pairs that reach half the threshold on the elements are
    interpolated. Memory: the coefficients of the chiral latents (as large as their decoders) and bounded blocks.
    Deterministic on the CPU.
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
        _search(found, W_dec_LGD, chiral, live, group, stabilizers, threshold)
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
    live: torch.Tensor,
    group: Group,
    stabilizers: list[Stabilizer],
    threshold: float,
) -> None:
    latents, others = chiral.nonzero()[:, 0], live.nonzero()[:, 0]
    if len(latents) == 0:
        return
    fourier = GroupFourier(group, W_dec_LGD)
    coefficients = fourier.forward_units(W_dec_LGD, latents, latent_step(len(latents), group, W_dec_LGD.shape[2]))
    best, partner = torch.zeros(len(latents)), torch.full((len(latents),), -1, dtype=torch.int64)
    curves = torch.zeros(len(latents), group.n)
    step = max(1, min(int((MAX_PAIR_NUMBERS / group.order) ** 0.5), latent_step(len(live), group, W_dec_LGD.shape[2])))
    for first in range(0, len(others), step):
        block = fourier.forward(units(W_dec_LGD, others[first : first + step]))
        for start in range(0, len(latents), step):
            stop = min(start + step, len(latents))
            cosine = fourier.correlate(block, fourier.rows(coefficients, start, stop)).cpu()
            near, turned = cosine[..., group.n :], cosine[..., : group.n]
            i, j = (near.amax(2) >= 0.5 * threshold).T.nonzero(as_tuple=True)  # latents, and those compared with them
            mirrored = interpolate(near[j, i], PAIR_UPSAMPLING).amax(1)
            counts = (mirrored >= threshold) & (mirrored > interpolate(turned[j, i], PAIR_UPSAMPLING).amax(1))
            i, j, mirrored = i[counts], j[counts], mirrored[counts]
            # Pairs come by rising i, then rising j; a stable sort leaves ties to the lower j.
            order = mirrored.argsort(descending=True, stable=True)
            order = order[i[order].argsort(stable=True)]
            i, j, mirrored = i[order], j[order], mirrored[order]
            top = torch.ones(len(i), dtype=torch.bool)
            top[1:] = i[1:] != i[:-1]
            better = top & (mirrored > best[start + i])
            rows = start + i[better]
            best[rows], partner[rows] = mirrored[better], others[first + j[better]]
            curves[rows] = near[j[better], i[better]]
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
