"""Broken symmetry: latents with a stabilizer that some of their blocks, missing or weakened, do not keep."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from groupcc.analysis.symmetry.blocks import block_norms, latent_step
from groupcc.analysis.symmetry.stabilizers import Stabilizer, find_stabilizers
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.groups import Group
from groupcc.groups.algebra import FloatArray

__all__ = ["BROKEN_SHARES", "MISSING", "WEAKENED", "Broken", "find_broken", "present_autocorrelation"]

WEAKENED = 0.5
"""A block is weakened where it is shorter than this share of its equals."""

MISSING = 0.2
"""A block is missing where it is shorter than this share of its equals; as latent scaling's `EMPTY`."""

BROKEN_SHARES = (0.1, 0.4)
"""A symmetry is broken where from a tenth to two fifths of the blocks are missing or weakened. With fewer it is whole;
with about half, a latent that the missing blocks belong to can't be told from one that does not have them."""

APART = 4.0
"""Two groups of lengths are told apart where their means differ by this many standard deviations within them. That of
lengths spread evenly, or as 1 + cos, and cut at half their third quartile, is about 3."""

ROUNDS = 4
"""Most times that blocks are judged by a stabilizer and a stabilizer is found in those that are left."""

SUPPORT = 0.15
"""Least share of a latent's power that must be in pairs g, gh of blocks that are both there, to say what C(h) is."""


@dataclass(frozen=True, eq=False)
class Broken:
    """How a latent's symmetry is broken.

    - `name`: the type of the stabilizer that the blocks keep which are there ("D2").
    - `missing`, `weakened`: elements whose blocks are; `order`: |G|.
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
        told = ", ".join(f"{count} {word}" for count, word in counts if count)
        return f"broken {self.name}: of {self.order} blocks {told} ({100 * self.share:.0f} %)"


def present_autocorrelation(W_LGD: torch.Tensor, present_LG: torch.Tensor, group: Group) -> torch.Tensor:
    """C over those pairs of blocks of which both are there, [L, G, D], bool [L, G] → [L, G] in [−1, 1].

    C°(h) = Σ⟨d_g, d_{gh}⟩ / ½Σ(‖d_g‖² + ‖d_{gh}‖²), sums over g with d_g and d_{gh} both present: the autocorrelation
    where all are, and 1 exactly where R_h changes no block that can be compared. 0 where such pairs hold less than
    `SUPPORT` of the power.
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
        told = power > SUPPORT * square.sum(1, keepdim=True)
        sums = gram.gather(2, index.expand(len(W), -1, -1)).sum(1)
        parts.append(torch.where(told, sums / torch.where(told, power, torch.ones_like(power)), 0.0))
    return torch.cat(parts).clamp_(-1.0, 1.0)


def find_broken(
    W_LGD: torch.Tensor,
    group: Group,
    stabilizers: list[Stabilizer],
    tolerance: float | None = None,
    left_out: torch.Tensor | None = None,
) -> tuple[list[Stabilizer], torch.Tensor]:
    """The stabilizers with those of broken latents put right, and each block's state, int8 [L, G].

    A latent with stabilizer H has equal blocks on each coset gH. Where some of these are missing, C(h) falls for every
    h in H, and the latent seems to have less symmetry than it has: with a third of the blocks gone, C ≈ 2/3. So:

    1. Blocks shorter than half the latent's third quartile of norms are set aside, and a stabilizer H is looked for in
       C over the pairs of blocks that are left (`present_autocorrelation`): as ever, between elements for mirrors, and
       within `tolerance`; None calibrates one on this C, but for `left_out` latents (bool [L]).
    2. Each block is held against its equals, the blocks of gH: weakened (1) where shorter than `WEAKENED` times
       their length (the mean of those above half the longest), missing (2) where shorter than `MISSING` times it, or
       where short and of another direction (cosine with their sum below ½); else present (0). Cosets all of which
       are short, and blocks without equals, are held against the other cosets in the same way, if the lengths fall
       into two groups (means apart by `APART` standard deviations within them): lengths that vary are no break.
    3. With these set aside H must come out again. The latent is broken where a share within `BROKEN_SHARES` of its
       blocks is missing or weakened, and H is no smaller than what all blocks together keep.

    So norms that vary from coset to coset are no break, nor is a latent that has no blocks at all for the mirrored
    images: half of them. Returned for a latent that is not broken: its stabilizer as given, states of 0.
    Deterministic. `W_LGD` is checked and finite.
    """
    norms = block_norms(W_LGD).cpu().double()
    states = torch.zeros(norms.shape, dtype=torch.int8)
    found = list(stabilizers)
    alive = torch.tensor([stabilizer.kind != "dead" for stabilizer in stabilizers], dtype=torch.bool)
    there = norms >= WEAKENED * norms.quantile(0.75, dim=1, keepdim=True)
    suspects = (alive & ~there.all(1)).nonzero().flatten()
    if len(suspects) == 0:
        return found, states
    if tolerance is None:
        asked = alive if left_out is None else alive & ~left_out
        tolerance = calibrate_tolerance(present_autocorrelation(W_LGD, there, group).cpu()[asked], group)
    W, lengths = W_LGD[suspects.to(W_LGD.device)], norms[suspects].numpy()
    grams = torch.cat([w @ w.mT for w in W.split(latent_step(len(W), group, W.shape[2]))]).cpu().numpy()
    judged = (~there[suspects]).to(torch.int8)
    kept: list[Stabilizer] = []
    for _ in range(ROUNDS):
        before, kept = kept, find_stabilizers(present_autocorrelation(W, judged == 0, group).cpu(), group, tolerance)
        settled = [bool(before) and new.label == old.label for new, old in zip(kept, before or kept, strict=True)]
        for row in np.flatnonzero(~np.array(settled)).tolist():
            judged[row] = _states(lengths[row], grams[row], group, kept[row])
    least, most = BROKEN_SHARES
    for row, latent in enumerate(suspects.tolist()):
        share = float((judged[row] > 0).double().mean())
        if settled[row] and least <= share <= most and kept[row].order >= stabilizers[latent].order:
            states[latent] = judged[row]
            found[latent] = replace(kept[row], broken=True)
    return found, states


def _states(norms_G: FloatArray, gram_GG: FloatArray, group: Group, stabilizer: Stabilizer) -> torch.Tensor:
    """Which blocks are present (0), weakened (1) or missing (2), held against the blocks of gH; int8 [G]."""
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
        within = (
            np.where(short, among - few, among - usual).std() * (cosets / (cosets - 3)) ** 0.5
        )  # two means and a limit are fitted
        if usual - few > APART * within:
            states[short] = np.where(among[short] < MISSING * usual, 2, 1)
    return torch.from_numpy(states.astype(np.int8))
