"""The orientation dial: how often a base latent fired in each of its poses, and where the gaps are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch

from groupcc.errors import argument_error
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import BoolArray, IntArray

__all__ = ["DIAL_KINDS", "GAP_ERROR", "GAP_RATE", "Dial", "DialRing", "Rings", "dispersion", "pose_rings", "read_dial"]

GAP_RATE = 0.25
"""In a gap a latent fires less often than this multiple of its mean rate."""

GAP_ERROR = 0.01
"""Largest probability of a gap by chance, for all runs of poses of one latent together."""

DialKind = Literal["even", "uneven", "gaps", "few", "one"]
DIAL_KINDS: tuple[DialKind, ...] = ("even", "uneven", "gaps", "few", "one")
"""Every `Dial.kind`."""


@dataclass(frozen=True, eq=False)
class DialRing:
    """The unmirrored or the mirrored poses of one latent, by rising turn.

    - `counts` int64 [m]: firings (in a `Coverage`: members) in the pose turned by 0, `step`, 2·`step`, … degrees. The
      m-th is the first again. `gaps` bool [m]: which poses lie in a gap.
    - `step`: 360°/n.
    """

    counts: IntArray
    gaps: BoolArray
    step: float

    @property
    def covered(self) -> float:
        """Share of the poses that lie in no gap."""
        return float(1.0 - self.gaps.mean())

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(first pose, number of poses) of each gap, by the first pose. A gap that passes 0 starts before it."""
        return _runs(self.gaps)

    @property
    def largest_gap(self) -> float:
        """Degrees of turn in the largest gap, 0 if there is none; at most m·`step`."""
        return self.step * max((length for _, length in self.runs), default=0)


@dataclass(frozen=True, eq=False)
class Rings:
    """The distinct poses of a shape with stabilizer H.

    - `turned`: the poses that are rotations. `mirrored`: the other poses; None if each equals a rotation (in C_n, and
      if the shape has a mirror).
    """

    turned: DialRing
    mirrored: DialRing | None

    @property
    def rings(self) -> tuple[DialRing, ...]:
        """The ring of rotations, and that of the mirrored poses if there is one."""
        return (self.turned,) if self.mirrored is None else (self.turned, self.mirrored)

    @property
    def n_poses(self) -> int:
        """|G|/|H|, the number of distinct poses."""
        return sum(len(ring.counts) for ring in self.rings)

    @staticmethod
    def columns(rings: Rings | None) -> dict[str, float | None]:
        """Returns what the atlas's table says of the rings; None throughout without them."""
        turned, mirrored = (None, None) if rings is None else (rings.turned, rings.mirrored)
        return {
            "covered": round(turned.covered, 5) if turned else None,
            "largest_gap_degrees": round(turned.largest_gap, 2) if turned else None,
            "covered_mirrored": round(mirrored.covered, 5) if mirrored else None,
            "largest_gap_degrees_mirrored": round(mirrored.largest_gap, 2) if mirrored else None,
        }


@dataclass(frozen=True, eq=False)
class Dial(Rings):
    """How often one base latent fired in each of its distinct poses: what `read_dial` returns.

    - `turned`, `mirrored`: see `Rings`.
    - `p_even`: probability under even firing of counts as uneven as these (Pearson's X²); 1 for a single pose.
    - `visible_gap`: degrees of the smallest empty gap that this many firings could show; None if they could show none.
    - `kind`: "one" (a single pose, nothing to compare), "few" (too few firings to show any gap), "gaps", "even" (no
      gap, and `p_even` above `GAP_ERROR` or the `error` given), "uneven" (no gap, and not even).
    """

    p_even: float
    visible_gap: float | None
    kind: DialKind

    @property
    def firings(self) -> int:
        """In all poses together."""
        return int(sum(ring.counts.sum() for ring in self.rings))


def read_dial(
    counts_G: IntArray,
    group: PlanarGroup,
    stabilizer: BoolArray,
    parts_BG: IntArray | None = None,
    *,
    rate: float = GAP_RATE,
    error: float = GAP_ERROR,
) -> Dial:
    """Returns the dial of a latent with stabilizer H (bool [G]) that fired `counts_G`[h] times in pose h, int64 [G].

    Poses h and hk look the same for every k in H, and which of them an encoder reports is chance. So the counts of a
    coset hH are added, which leaves |G|/|H| distinct poses: the rotations by 0 … m − 1 steps of 360°/n (m is n over the
    number of rotations in H), and as many mirrored ones if H has no mirror. A mirror axis between two elements makes
    this folding approximate by half a step. Example C_4 with H = {0°, 180°}: counts [5, 1, 3, 0] become [8, 1].

    A gap is a run of neighbouring poses of one ring with two properties. Each pose is counted less than `rate`·μ times,
    μ the mean over all distinct poses. And the w poses together hold so few firings c that
    P(Poisson(rate·w·μ) ≤ c) ≤ error/T. Runs that overlap or touch are one gap. T is the number of runs, all of which
    are tested: m(m − 1) a ring, and the whole ring if there are two.

    So if every pose of a latent fires at `rate` times its mean or more, it is given a gap with probability at most
    `error` (Bonferroni; given the total, a count is binomial, with a lower tail below Poisson's: Anderson and Samuels
    1967). That holds for independent firings. Neighbouring positions of one photograph fire together. With `parts_BG`,
    the counts of B parts of the photographs, int [B, G], all counts and means of the tests are divided by the firings'
    dispersion φ (quasi-Poisson; `dispersion`): 1,000 firings in clusters of 20 then count as 50. A gap says what these
    examples hold, not what the world does.

    Deterministic. ArgumentError for a `rate` or an `error` outside (0, 1).
    """
    for name, value in (("rate", rate), ("error", error)):
        if not 0.0 < value < 1.0:
            raise argument_error(name, expected="a number in (0, 1)", got=value, remedy="Leave it out for the default.")
    counts = np.asarray(counts_G, dtype=np.int64)
    folded = [counts[coset].sum(1) for coset in pose_rings(group, stabilizer.tobytes())]
    phi = 1.0 if parts_BG is None else dispersion(parts_BG, group, stabilizer)
    m, rings = len(folded[0]), len(folded)
    poses, firings = m * rings, int(sum(ring.sum() for ring in folded))
    mean, step = firings / poses, 360.0 / group.n
    tests = rings * m * (m - 1) + (rings if rings > 1 else 0)
    if tests == 0:
        return Dial(DialRing(folded[0], np.zeros(m, dtype=np.bool_), step), None, 1.0, None, "one")

    longest = m if rings > 1 else m - 1
    # An empty run of w poses has probability exp(−rate·w·mean).
    empty = math.ceil(math.log(tests / error) * phi / (rate * mean)) if firings else longest + 1
    read = [DialRing(ring, _gaps(ring, rate * mean, error / tests, phi), step) for ring in folded]
    p_even = _p_even(np.concatenate(folded), phi)
    kind: DialKind
    if empty > longest:
        kind = "few"
    elif any(ring.gaps.any() for ring in read):
        kind = "gaps"
    else:
        kind = "even" if p_even > error else "uneven"
    return Dial(read[0], read[1] if rings > 1 else None, p_even, empty * step if empty <= longest else None, kind)


@lru_cache(maxsize=1024)
def pose_rings(group: PlanarGroup, stabilizer: bytes) -> list[IntArray]:
    """Returns the elements of each distinct pose, by ring: [m, |H|] each."""
    mask = np.frombuffer(stabilizer, dtype=np.bool_)
    elements = np.flatnonzero(mask)
    mirror = bool((mask & group.reflections).any())
    m = group.n // int((mask & ~group.reflections).sum())
    starts = [0] if group.kind == "cyclic" or mirror else [0, group.n]
    return [group.cayley[start + np.arange(m)[:, None], elements] for start in starts]


def dispersion(parts_BG: IntArray, group: PlanarGroup, stabilizer: BoolArray) -> float:
    """Returns how much more the counts of distinct poses vary between parts than those of independent firings, ≥ 1.

    φ = Σ (c_bp − n_b·q_p)² / (n_b·q_p) / ((B − 1)(P − 1)) over parts b with n_b firings and poses p with a share q_p of
    all firings: Pearson's X² over its degrees of freedom. It is 1 on average for independent firings, however unequal
    parts and poses are, and 20 for clusters of 20 in one pose each. 1 if one part or one pose has all firings.

    Example: two parts and two poses, [[4, 0], [0, 4]]: all four expect 2, so φ = 4·(2²/2)/1 = 8.
    """
    elements = pose_rings(group, stabilizer.tobytes())
    counts = np.concatenate([np.asarray(parts_BG, dtype=np.float64)[:, ring].sum(2) for ring in elements], axis=1)
    counts = counts[counts.sum(1) > 0][:, counts.sum(0) > 0]
    B, P = counts.shape
    if B < 2 or P < 2:
        return 1.0
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return max(1.0, float(((counts - expected) ** 2 / expected).sum() / ((B - 1) * (P - 1))))


def _gaps(counts: IntArray, least: float, error: float, phi: float) -> BoolArray:
    """Returns the poses, bool [m], of runs of counts below `least` that hold so few with probability ≤ `error`."""
    if (counts >= least).all():
        return np.zeros(len(counts), dtype=np.bool_)
    # Row w − 1, column s: the run of w poses from s on. Shorter runs are tested too: chance may explain a run of poses
    # with few firings beside empty ones, and the empty ones by themselves are a gap all the same.
    offsets = np.arange(len(counts))
    poses_WS = (offsets[:, None] + offsets) % len(counts)
    low_WS = np.logical_and.accumulate((counts < least)[poses_WS], axis=0)
    held_WS = counts[poses_WS].cumsum(axis=0)
    length_WS = np.broadcast_to(offsets[:, None] + 1, low_WS.shape)
    # P(Poisson(λ) ≤ c) is the regularised upper incomplete gamma function at (c + 1, λ).
    held, expected = (torch.from_numpy(values[low_WS]).double() for values in (held_WS, length_WS))
    unlikely_WS = low_WS.copy()
    unlikely_WS[low_WS] = (torch.special.gammaincc(held / phi + 1.0, least * expected / phi) <= error).numpy()
    reach_S = (unlikely_WS * length_WS).max(axis=0)
    after_PS = (offsets[:, None] - offsets) % len(counts)
    return np.asarray((after_PS < reach_S).any(axis=1))


def _runs(mask: BoolArray) -> list[tuple[int, int]]:
    """Returns (first, length) of each maximal run of True around the circle, sorted."""
    if mask.all():
        return [(0, len(mask))]
    starts = np.flatnonzero(mask & ~np.roll(mask, 1))
    ends = np.flatnonzero(~mask)
    return [(int(s), int(((ends - s) % len(mask)).min())) for s in starts]


def _p_even(counts: IntArray, phi: float) -> float:
    """P(χ² with one degree of freedom fewer than poses ≥ X²), X² = Σ (c − μ)²/(μφ); 1 without firings."""
    mean = counts.mean()
    if mean == 0:
        return 1.0
    x2 = float(((counts - mean) ** 2).sum() / mean / phi)
    half = torch.tensor([0.5 * (len(counts) - 1), 0.5 * x2], dtype=torch.float64)
    return float(torch.special.gammaincc(half[0], half[1]))
