"""Broken symmetry: latents with a stabilizer that some of their blocks do not keep, as they are missing or weakened."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from groupcc.analysis.symmetry.blocks import block_norms
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray
from groupcc.groups.autocorrelation import latent_step, translated_sums

__all__ = ["BROKEN_SHARES", "MISSING", "WEAKENED", "Broken", "find_broken", "present_autocorrelation"]

WEAKENED = 0.5
"""A block is weakened if it is shorter than this share of its equals."""

MISSING = 0.2
"""A block is missing if it is shorter than this share of its equals; as latent scaling's `EMPTY`."""

BROKEN_SHARES = (0.1, 0.4)
"""A symmetry is broken if from a tenth to two fifths of the blocks are missing or weakened. With fewer it is whole.
With about half, a latent that lost these blocks can't be told from one that never had them."""

APART = 4.0
"""Two groups of lengths are told apart if their means differ by this many standard deviations within them. For lengths
that are spread evenly, or as 1 + cos, and are cut at half their third quartile, it is about 3."""

ROUNDS = 4
"""Most times that blocks are judged by a stabilizer, and a stabilizer is looked for in those that are left."""

SUPPORT = 0.15
"""Least share of a latent's power in pairs g, gh of present blocks for C(h) to be said."""


@dataclass(frozen=True, eq=False)
class Broken:
    """How a latent's symmetry is broken.

    - `name`: type of the stabilizer that the present blocks keep ("D2").
    - `missing`, `weakened`: elements whose blocks are so. `order`: |G|.
    """

    name: str
    missing: list[int]
    weakened: list[int]
    order: int

    @property
    def share(self) -> float:
        """Share of the blocks that are missing or weakened."""
        return (len(self.missing) + len(self.weakened)) / self.order

    def __str__(self) -> str:
        counts = ((len(self.missing), "missing"), (len(self.weakened), "weakened"))
        listed = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"broken {self.name}: of {self.order} blocks {listed} ({100 * self.share:.0f} %)"


def present_autocorrelation(W_LGD: torch.Tensor, present_LG: torch.Tensor, group: PlanarGroup) -> torch.Tensor:
    """C over those pairs of blocks of which both are present, [L, G, D], bool [L, G] → [L, G] in [−1, 1].

    C°(h) = Σ⟨d_g, d_{gh}⟩ / ½Σ(‖d_g‖² + ‖d_{gh}‖²), with sums over the g for which d_g and d_{gh} are both present. It
    is the autocorrelation if all are, and 1 exactly if R_h changes no block that can be compared. It is 0 if such pairs
    hold less than `SUPPORT` of the power.
    """
    index = torch.tensor(group.cayley, device=W_LGD.device)  # [g, h] -> gh
    parts = [W_LGD.new_zeros(0, group.order)]
    step = latent_step(len(W_LGD), group, W_LGD.shape[2])
    for W, present in zip(W_LGD.split(step), present_LG.to(W_LGD.device).split(step), strict=True):
        W = W * present[:, :, None]
        # Scaled first: the squares of tiny weights would leave the range of fp32.
        scale = W.abs().amax(dim=(1, 2), keepdim=True)
        W = W / torch.where(scale > 0, scale, torch.ones_like(scale))
        gram = W @ W.mT
        square = gram.diagonal(dim1=1, dim2=2)
        both = present[:, index] & present[:, :, None]  # [l, g, h]
        power = (0.5 * (square[:, index] + square[:, :, None]) * both).sum(1)
        known = power > SUPPORT * square.sum(1, keepdim=True)
        C_LG = translated_sums(gram, group) / torch.where(known, power, torch.ones_like(power))
        parts.append(torch.where(known, C_LG, 0.0))
    return torch.cat(parts).clamp_(-1.0, 1.0)


def find_broken(
    W_LGD: torch.Tensor,
    group: PlanarGroup,
    stabilizers: list[Stabilizer],
    tolerance: float | None = None,
    left_out: torch.Tensor | None = None,
) -> tuple[list[Stabilizer], torch.Tensor]:
    """Returns the stabilizers with those of broken latents put right, and each block's state, int8 [L, G].

    A latent with stabilizer H has equal blocks on each coset gH. If some of these are missing, C(h) falls for every h
    in H, and the latent seems to have less symmetry than it has: if a third of the blocks is gone, C ≈ 2/3. So:

    1. Blocks shorter than half the latent's third quartile of norms are set aside. A stabilizer H is looked for in C
       over the pairs of blocks that are left (`present_autocorrelation`), within `tolerance`, mirrors between elements
       too. None calibrates a tolerance on this C, without the `left_out` latents (bool [L]).
    2. Each block is compared with its equals, the blocks of gH; their length is the mean of those above half the
       longest. The block is weakened (1) if it is shorter than `WEAKENED` times their length. It is missing (2) if it
       is shorter than `MISSING` times their length, or if it is short and points elsewhere (cosine with their sum below
       ½). Else it is present (0). If all blocks of a coset are short, or a block has no equals, they are compared with
       the other cosets in the same way, provided that the lengths fall into two groups (means apart by `APART` standard
       deviations within them): lengths that merely vary are no break.
    3. With these blocks set aside H must come out again. The latent is broken if a share within `BROKEN_SHARES` of its
       blocks is missing or weakened, and H is no smaller than what all blocks together keep.

    So norms that vary from coset to coset are no break. Nor is a latent that has no blocks at all for mirrored images:
    these are half of its blocks. A latent that is not broken keeps its stabilizer, with states of 0. Deterministic.
    `W_LGD` is checked and finite.
    """
    norms = block_norms(W_LGD).cpu().double()
    states = torch.zeros(norms.shape, dtype=torch.int8)
    alive = torch.tensor([stabilizer.kind != "dead" for stabilizer in stabilizers], dtype=torch.bool)
    long = norms >= WEAKENED * norms.quantile(0.75, dim=1, keepdim=True)
    suspects = (alive & ~long.all(1)).nonzero().flatten()
    if len(suspects) == 0:
        return list(stabilizers), states
    if tolerance is None:
        asked = alive if left_out is None else alive & ~left_out
        tolerance = calibrate_tolerance(present_autocorrelation(W_LGD, long, group).cpu()[asked], group)
    W, lengths = W_LGD[suspects.to(W_LGD.device)], norms[suspects].numpy()
    kept, judged, settled = _judge(W, lengths, (~long[suspects]).to(torch.int8), group, tolerance)
    mended = list(stabilizers)
    least, most = BROKEN_SHARES
    for row, latent in enumerate(suspects.tolist()):
        share = float((judged[row] > 0).double().mean())
        if settled[row] and least <= share <= most and kept[row].order >= stabilizers[latent].order:
            states[latent] = judged[row]
            mended[latent] = replace(kept[row], broken=True)
    return mended, states


def _judge(
    W_SGD: torch.Tensor, lengths: FloatArray, judged: torch.Tensor, group: PlanarGroup, tolerance: float
) -> tuple[list[Stabilizer], torch.Tensor, list[bool]]:
    """Returns the stabilizers that the blocks not set aside keep, the blocks' states, and whether these stay so.

    `judged` int8 [S, G]: what is set aside to begin with.
    """
    step = latent_step(len(W_SGD), group, W_SGD.shape[2])
    grams = torch.cat([w @ w.mT for w in W_SGD.split(step)]).cpu().numpy()
    kept: list[Stabilizer] = []
    for _ in range(ROUNDS):
        C_SG = present_autocorrelation(W_SGD, judged == 0, group).cpu()
        before, kept = kept, find_stabilizers(C_SG, group, tolerance)
        settled = [bool(before) and new.label == old.label for new, old in zip(kept, before or kept, strict=True)]
        for row in np.flatnonzero(~np.array(settled)).tolist():
            judged[row] = _states(lengths[row], grams[row], group, kept[row])
    return kept, judged, settled


def _states(norms_G: FloatArray, gram_GG: FloatArray, group: PlanarGroup, stabilizer: Stabilizer) -> torch.Tensor:
    """Returns which blocks are present (0), weakened (1) or missing (2), compared with the blocks of gH; int8 [G]."""
    equals = group.cayley[:, np.flatnonzero(stabilizer.mask)]  # [G, |H|], row g: gH
    lengths = norms_G[equals]
    upper = lengths >= WEAKENED * lengths.max(1, keepdims=True)
    among = np.where(upper, lengths, 0.0).sum(1) / upper.sum(1)
    summed = np.zeros(gram_GG.shape)  # row g: which blocks' sum block g is held against
    np.put_along_axis(summed, equals, upper.astype(np.float64), axis=1)
    length = np.sqrt(np.maximum((summed @ gram_GG * summed).sum(1), 0.0))
    other_way = (summed * gram_GG).sum(1) < 0.5 * norms_G * length
    states = np.where(norms_G < WEAKENED * among, np.where(other_way | (norms_G < MISSING * among), 2, 1), 0)
    short = among < WEAKENED * np.quantile(among, 0.75)
    cosets = group.order // stabilizer.order
    if short.any() and cosets > 3:
        usual, few = among[~short].mean(), among[short].mean()
        fitted = (cosets / (cosets - 3)) ** 0.5  # two means and a limit are fitted
        within = np.where(short, among - few, among - usual).std() * fitted
        if usual - few > APART * within:
            states[short] = np.where(among[short] < MISSING * usual, 2, 1)
    return torch.from_numpy(states.astype(np.int8))
