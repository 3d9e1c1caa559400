"""Families by what they fire for: how strongly, where and in which poses, and how alike two families are by that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.families.group_fourier import GroupFourier
from groupcc.data import Orbits
from groupcc.groups import Group
from groupcc.groups.autocorrelation import MAX_BLOCK_NUMBERS, latent_step
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder
from groupcc.models.metrics import batch_starts

__all__ = ["BY_CHANCE", "FEWEST_PLACES", "Likeness", "compare_firing", "family_firing", "most_places"]

FEWEST_PLACES = 10
"""Places at which a family must fire, under any transform, to be compared."""

SHIFTS = 20
"""Wrong pairings of the places, by which chance is measured."""

BY_CHANCE = 0.05
"""Largest share of the matches that may be chance."""

MOST_ENCODED = 1 << 16
"""Examples that are encoded at most: places times transforms."""

MOST_FIRING = 1 << 28
"""Numbers of `family_firing` of both dictionaries together, at most (1 GiB). Comparing takes three times that."""

MAX_PAIR_NUMBERS = 1 << 22
"""Correlations held at once: families × families × |G|."""

Firing = npt.NDArray[np.float32]


def most_places(group: Group, families: int) -> int:
    """Returns at how many places two dictionaries with so many families together are compared."""
    return max(1, min(MOST_ENCODED, MOST_FIRING // max(1, families)) // group.order)


@torch.no_grad()
def family_firing(
    atlas: Atlas, crosscoder: GroupCrosscoder, orbits: Orbits, examples: torch.Tensor, *, progress: bool = False
) -> torch.Tensor:
    """Returns how strongly each family's shape is found in each pose at each place: fp32 [families, G, N], CPU.

        F[f, r, n] = Σ_m ‖d_m‖ act_m(R_{p_m r} a_n)

    over the members m of family f, d_m ≈ R_{p_m} d_reference, act_m after the choice of the active latents. Every
    member is moved to the reference's pose. So a family of one member says the same as one with a detector for every
    orientation.

    If latents have poses, the members are a latent's atoms. An encoder reports one of the equal poses of its stabilizer
    H, so F is summed over H. `examples` int64 [N] of `orbits`: each is encoded under every transform, or once if that
    changes the poses alone. Deterministic on the CPU.
    """
    group, config = crosscoder.group, crosscoder.config
    G, N, device = group.order, len(examples), crosscoder.W_dec.device
    labels, poses = atlas.families.labels.to(device), atlas.families.poses.to(device)
    norms = crosscoder.W_dec.float().flatten(1).norm(dim=1)
    cayley, inverse = (torch.from_numpy(table.copy()).to(device) for table in (group.cayley, group.inverse))
    translations = translation_table(group, device)
    width = max(config.d_in * G, config.n_latents * crosscoder.n_poses)
    step = max(1, MAX_BLOCK_NUMBERS // width)
    firing = torch.zeros(len(atlas.families), G, N, device=device)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in batch_starts(N, step, "compare", progress):
            acts = orbits.take(examples[start : start + step]).to(device)
            for h in [group.identity] if crosscoder.form.translates_exactly else range(G):
                latents = crosscoder.encode(acts[:, translations[h]])
                row, column = ((latents.acts > 0) & (labels[latents.indices] >= 0)).nonzero().unbind(1)
                which = latents.indices[row, column]
                pose = poses[which] if latents.poses is None else latents.poses[row, column]
                strength = latents.acts[row, column].float() * norms[which]
                at = (labels[which] * G + cayley[inverse[pose], h]) * N + row + start
                firing.view(-1).index_add_(0, at, strength)
    finally:
        crosscoder.train(was_training)
    firing = firing.cpu()
    if atlas.has_poses:
        for family, reference in enumerate(atlas.families.references):
            equal = torch.from_numpy(group.cayley[atlas.stabilizers[reference].mask])
            firing[family] = firing[family][equal].sum(0)
    return firing


@dataclass(frozen=True, eq=False)
class Likeness:
    """What `compare_firing` returns.

    - `similarity` float32 [families of a, families of b]; 0 if one of the two fires at too few places.
    - `own_a`, `own_b` float32: the similarity of each family with the nearest other one of its own dictionary. So much
      is reached by a different shape that occurs together with it.
    - `places_a`, `places_b`: the number of places at which each family fires.
    - `threshold`: the similarity that chance seldom reaches.
    """

    similarity: Firing
    own_a: Firing
    own_b: Firing
    places_a: list[int]
    places_b: list[int]
    threshold: float

    def matches(self, threshold: float) -> list[tuple[int, int]]:
        """Returns pairs of families that are each other's nearest of all, and at least so much alike."""
        return _nearest_both_ways(self.similarity, threshold)

    def nearest(self, threshold: float) -> tuple[list[int | None], list[int | None]]:
        """Returns for each family of a and of b the nearest one of the other dictionary, if it is at least so much
        alike, and more alike than any family of the own dictionary; else None."""
        nearest: list[list[int | None]] = []
        for likeness, own in ((self.similarity, self.own_a), (self.similarity.T, self.own_b)):
            best = likeness.max(1, initial=0.0)
            near = (best >= threshold) & (best > own)
            nearest.append([int(likeness[i].argmax()) if is_near else None for i, is_near in enumerate(near.tolist())])
        return nearest[0], nearest[1]


def compare_firing(a_FGN: torch.Tensor, b_FGN: torch.Tensor, group: Group) -> Likeness:
    """Compares the families of two dictionaries by their `family_firing` at the same places, image after image.

        similarity[i, j] = max_k corr_{r, n}(a[i, r, n], b[j, kr, n])

    Pearson's correlation over transforms and places. k is free, since each family is posed by a reference of its own.

    What chance does is measured on wrong pairings: b's places are shifted along the images by N·s/21, s = 1 … 20, which
    leaves neighbouring places neighbours. `threshold` is the least similarity t for which

        (1 + matches ≥ t in all wrong pairings) / (20 · matches ≥ t in the right one) ≤ 0.05

    So at most one match in twenty is expected to be chance: the rate of false discoveries as decoys estimate it (Elias
    & Gygi 2007, with one added as in Barber & Candès 2015). Example: 99 matches at t in the wrong pairings and 100 in
    the right one give 100/2000. It is 1 if nothing beats chance. Families that differ and yet occur together are alike
    beyond chance. That is why a match must be the nearest from both sides (benchmarks/compare_families.py measures it).

    22 times all pairs, Σ_ρ d_ρ³ · N multiplications each: 1,000 families with 1,000 under D32 at 1,024 places take 48
    seconds on one CPU core. Deterministic on the CPU.
    """
    N = a_FGN.shape[2]
    a, b = _Side(a_FGN, group), _Side(b_FGN, group)
    alike = a.against(b)
    right = _values(alike)
    wrong = np.concatenate([_values(a.against(b, round(N * s / (SHIFTS + 1)))) for s in range(1, SHIFTS + 1)])
    # The rate falls only just above a value that a wrong pairing reaches.
    least = np.sort(np.concatenate([[np.float32(0)], np.nextafter(wrong, np.float32(2))]))
    by_chance = 1 + len(wrong) - np.searchsorted(np.sort(wrong), least)
    matches = len(right) - np.searchsorted(np.sort(right), least)
    enough = least[by_chance <= BY_CHANCE * SHIFTS * matches]
    similarity = np.zeros((len(a_FGN), len(b_FGN)), dtype=np.float32)
    similarity[np.ix_(a.live, b.live)] = alike
    places = a.places.tolist(), b.places.tolist()
    return Likeness(similarity, a.nearest_other(), b.nearest_other(), *places, float(enough.min(initial=1.0)))


def _nearest_both_ways(similarity: Firing, threshold: float) -> list[tuple[int, int]]:
    if 0 in similarity.shape:
        return []
    i = np.arange(len(similarity))
    j = similarity.argmax(1)
    kept = (similarity.argmax(0)[j] == i) & (similarity[i, j] >= threshold) & (similarity[i, j] > 0)
    return list(zip(i[kept].tolist(), j[kept].tolist(), strict=True))


def _values(similarity: Firing) -> Firing:
    return np.array([similarity[pair] for pair in _nearest_both_ways(similarity, 0.0)], dtype=np.float32)


class _Side:
    """The families of one dictionary that fire often enough, centred, as Fourier coefficients."""

    def __init__(self, firing_FGN: torch.Tensor, group: Group) -> None:
        self.places: npt.NDArray[np.int64] = (firing_FGN.amax(1) > 0).sum(1).numpy()
        # z[k] = Σ_r a[r] b[kr] correlates right translates once r is replaced by its inverse.
        moved = firing_FGN[:, torch.from_numpy(group.inverse.copy())]
        moved -= moved.mean((1, 2), keepdim=True)
        varies = (moved.flatten(1).norm(dim=1) > 0).numpy()
        self.live = np.flatnonzero((self.places >= FEWEST_PLACES) & varies)
        self._group, self._n_places = group, moved.shape[2]
        self._fourier = GroupFourier(group, moved)
        step = latent_step(max(len(self.live), 1), group, self._n_places)
        self._coefficients = self._fourier.forward_units(moved, torch.from_numpy(self.live), step)

    def nearest_other(self) -> Firing:
        """Returns the largest correlation of each family with another one of this dictionary; 0 for those left out."""
        alike = self.against(self)
        np.fill_diagonal(alike, 0.0)
        nearest = np.zeros(len(self.places), dtype=np.float32)
        nearest[self.live] = alike.max(1, initial=0.0)
        return nearest

    def against(self, other: _Side, shift: int = 0) -> Firing:
        """Returns the largest correlation over the group of each live family with each of the other dictionary, whose
        places are shifted."""
        largest = np.zeros((len(self.live), len(other.live)), dtype=np.float32)
        step = max(1, int((MAX_PAIR_NUMBERS / self._group.order) ** 0.5))
        for second in range(0, len(other.live), step):
            theirs = self._fourier.rows(other._coefficients, second, second + step)
            theirs = [c.unflatten(1, (-1, self._n_places)).roll(shift, 2).flatten(1) for c in theirs]
            for first in range(0, len(self.live), step):
                ours = self._fourier.rows(self._coefficients, first, first + step)
                best = self._fourier.correlate(ours, theirs).amax(2)
                largest[first : first + step, second : second + step] = best.numpy()
        return largest
