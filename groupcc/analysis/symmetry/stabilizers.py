"""The stabilizer of each latent, read off its autocorrelation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from groupcc.analysis.symmetry.interpolation import UPSAMPLING, coset_values, interpolate, periodic_peak
from groupcc.analysis.symmetry.modulated import modulated
from groupcc.groups import PlanarGroup, PlanarSubgroup
from groupcc.groups.arrays import BoolArray

__all__ = [
    "KINDS",
    "Stabilizer",
    "SubgroupScores",
    "TypeScores",
    "find_stabilizers",
    "kind_of_type",
    "restore_stabilizer",
    "subgroup_scores",
    "subgroup_types",
    "type_scores",
]

KINDS = ("invariant", "90", "180", "other-rotation", "mirror", "none", "undecided", "dead")
"""Every `Stabilizer.kind`, in the order in which tables list them."""

FAINT = 0.05
"""A modulated part with no more than this share of a latent's power says nothing of its symmetry."""


@dataclass(frozen=True, eq=False)
class Stabilizer:
    """The subgroup {h : R_h d = d} of one latent, within a tolerance.

    - `name`: type (`C1`, `D2`). `label`: the nearest subgroup of the group, told apart from others of its type by its
      axis (`D2@45°`). Both are `dead` for a dead latent. `mask`: that subgroup's elements, bool [G]. `order`: how many.
    - `axis`: the mirror axis in degrees counter-clockwise from horizontal, the one with the smallest angle, in
      [0, 180/m) for D_m. Interpolated, so it may lie between elements. None without a mirror, and if every reflection
      is in the stabilizer (no axis is special).
    - `score`: the smallest C over its elements, mirrors at the interpolated axis: C of the modulated part, and of an
      invariant latent C of the whole (`modulated`).
    - `kind`: "invariant" (the whole group, if that is more than the identity), "90" (contains C4), "180" (contains
      C2 but not C4), "other-rotation", "mirror" (D1: moves, one mirror), "none" (C1: moves and is chiral), "undecided",
      "dead".
    - `reason`: why it is undecided, in words; else empty. `name`, `label`, `mask` and `axis` are then the best guess.
    - `broken`: whether some blocks are missing or weakened, so that this is the stabilizer of the others. See
      [`Evidence`][groupcc.analysis.Evidence].
    """

    name: str
    label: str
    mask: BoolArray
    order: int
    axis: float | None
    score: float
    kind: str
    broken: bool = False
    reason: str = ""


@dataclass(frozen=True, eq=False)
class SubgroupScores:
    """Smallest C over the elements of C_m and D_m, for each divisor m of n; [divisors, L] each.

    `mirror_step` is the interpolated position of D_m's first reflection, in steps of 2π/n, in [0, n/m).
    """

    orders: tuple[int, ...]
    rotation: torch.Tensor
    dihedral: torch.Tensor | None
    mirror_step: torch.Tensor | None

    @property
    def values(self) -> torch.Tensor:
        """The score of each type of subgroup, in the order of `subgroup_types`: [types, L]."""
        return self.rotation if self.dihedral is None else torch.cat([self.rotation, self.dihedral])


def subgroup_types(group: PlanarGroup) -> tuple[str, ...]:
    """The types of subgroup that `group` has: C_m for each divisor m of n, rising, then D_m for each."""
    names = [f"C{m}" for m in range(1, group.n + 1) if group.n % m == 0]
    return (*names, *(f"D{name[1:]}" for name in names)) if group.kind == "dihedral" else tuple(names)


@dataclass(frozen=True, eq=False)
class TypeScores:
    """How well each type of subgroup fits each latent.

    `modulated`: the scores of the modulated parts. `values` [types, L]: these, 0 if the modulated part is `FAINT`, and
    for the whole group the smallest C of the whole latent. `share` [L]: the invariant share of its power.
    """

    modulated: SubgroupScores
    values: torch.Tensor
    share: torch.Tensor

    def best(self, tolerance: float) -> npt.NDArray[np.int64]:
        """Returns for each latent the largest type of subgroup with a score of at least 1 − tolerance, as an index into
        `subgroup_types`, [L]. Of two types of one order it is the one with the higher score, rotations on a tie.

        A latent that fits the whole group, but whose modulated part is more than `FAINT` and has a symmetry of its own,
        has the symmetry of that part. Example: a curve that has 90 % of its power in common under every transform has
        C ≥ 0.8 everywhere, and one mirror.
        """
        value = self.values.T.numpy()  # [L, types]
        # Rotations come before mirrors of the same order and win a tie.
        m = self.modulated.orders
        order = np.array([*m, *(2 * m for m in m)])[: value.shape[1]]
        accepted = value >= 1.0 - tolerance
        accepted[:, 0] = True  # C1
        accepted[:, -1] &= ~accepted[:, 1:-1].any(axis=1)
        # Scores lie within ±1, so an order always outweighs them.
        return np.asarray(np.where(accepted, 4.0 * order + value, -np.inf).argmax(axis=1))


def type_scores(C_LG: torch.Tensor, group: PlanarGroup) -> TypeScores:
    """Returns how well each type of subgroup fits each latent with this autocorrelation."""
    modulated_LG, share_L = modulated(C_LG)
    scores = subgroup_scores(modulated_LG, group)
    values = scores.values.clone()
    values[1:, share_L >= 1.0 - FAINT] = 0.0
    if len(values) > 1:  # not the group of one element
        values[-1] = C_LG.double().cpu().amin(1)
    return TypeScores(scores, values, share_L)


def subgroup_scores(C_LG: torch.Tensor, group: PlanarGroup) -> SubgroupScores:
    """Returns how well each type of subgroup fits each latent. Mirrors are looked for at any axis angle.

    A shape's mirror axis mostly lies between two elements, so C over the reflections is interpolated (`interpolate`).
    The axis of D_m is where the mean of its m mirrors is largest. Its score is the smallest C over the rotations of C_m
    and over the interpolated C at these m mirrors.
    """
    C_LG = C_LG.double().cpu()
    n = group.n
    orders = tuple(m for m in range(1, n + 1) if n % m == 0)
    rotations, reflections = coset_values(C_LG, group)
    rotation = torch.stack([rotations[:, :: n // m].amin(1) for m in orders])
    if reflections is None:
        return SubgroupScores(orders, rotation, None, None)
    curve = interpolate(reflections, UPSAMPLING)
    dihedral, steps = [], []
    for row, m in enumerate(orders):
        mirrors = curve.unflatten(-1, (m, -1))  # [L, m mirrors, position of the first]
        peak, position = periodic_peak(mirrors.mean(1))
        weakest = mirrors.amin(1).gather(-1, peak[:, None])[:, 0]
        dihedral.append(torch.minimum(weakest, rotation[row]))
        steps.append(position / UPSAMPLING % (n / m))
    return SubgroupScores(orders, rotation, torch.stack(dihedral), torch.stack(steps))


def find_stabilizers(
    C_LG: torch.Tensor, group: PlanarGroup, tolerance: float, dead: torch.Tensor | None = None
) -> list[Stabilizer]:
    """Returns each latent's stabilizer: the largest subgroup whose elements all have C' ≥ 1 − tolerance.

    `C_LG` is `autocorrelation(W_dec)`; `dead` bool [L]. C' is C of the modulated part (`modulated`), and for the whole
    group C itself. Of two subgroups of one order the one with the higher score is taken (rotations on a tie). Mirrors
    count at their interpolated axis, see `subgroup_scores`. n rotations resolve no harmonic above n/2 in the angle: a
    shape that changes faster shows only those mirrors that are elements.
    """
    types = type_scores(C_LG, group)
    scores, value, best = types.modulated, types.values.T.numpy(), types.best(tolerance)
    dead_L = np.zeros(len(value), dtype=bool) if dead is None else dead.cpu().numpy()
    stabilizers = []
    for latent, chosen in enumerate(best):
        if dead_L[latent]:
            stabilizers.append(_dead(group))
            continue
        mirrored, row = divmod(int(chosen), len(scores.orders))
        step = float(scores.mirror_step[row, latent]) if mirrored and scores.mirror_step is not None else None
        stabilizers.append(_stabilizer(group, scores.orders[row], step, float(value[latent, chosen])))
    return stabilizers


def _stabilizer(group: PlanarGroup, m: int, step: float | None, score: float) -> Stabilizer:
    n = group.n
    if step is None:
        subgroup = _lattice_subgroup(group, m, None)
        axis = None
    else:
        subgroup = _lattice_subgroup(group, m, int(np.floor(step + 0.5)) % (n // m))
        axis = None if m == n > 1 else (90.0 + 180.0 * step / n) % (180.0 / m)
        if axis is not None and 180.0 / m - axis < 1e-3:
            axis = 0.0  # a hair below the period is the same axis as 0
    return Stabilizer(subgroup.name, subgroup.label, subgroup.mask, subgroup.order, axis, score, _kind(group, subgroup))


@lru_cache(maxsize=4096)
def _lattice_subgroup(group: PlanarGroup, m: int, step: int | None) -> PlanarSubgroup:
    mask = np.zeros(group.order, dtype=np.bool_)
    mask[: group.n : group.n // m] = True
    if step is not None:
        mask[group.n + step :: group.n // m] = True
    return group.subgroup_of(mask)


def _kind(group: PlanarGroup, subgroup: PlanarSubgroup) -> str:
    if subgroup.order == group.order and group.order > 1:
        return "invariant"
    if subgroup.rotations % 4 == 0:
        return "90"
    if subgroup.rotations % 2 == 0:
        return "180"
    if subgroup.rotations > 1:
        return "other-rotation"
    return "mirror" if subgroup.axis is not None else "none"


def kind_of_type(group: PlanarGroup, name: str) -> str:
    """Returns the kind of latents with a stabilizer of this type, as `Stabilizer.kind`."""
    subgroup = _lattice_subgroup(group, int(name[1:]), None if name[0] == "C" else 0)
    return _kind(group, subgroup)


def restore_stabilizer(
    group: PlanarGroup,
    *,
    name: str,
    label: str,
    axis: float | None,
    score: float,
    kind: str,
    broken: bool = False,
    reason: str = "",
) -> Stabilizer:
    """Returns a Stabilizer from its fields without the mask, which follows from the label."""
    if kind == "dead":
        return _dead(group)
    subgroup = group.subgroup_named(label)
    return Stabilizer(name, label, subgroup.mask, subgroup.order, axis, score, kind, broken, reason)


def _dead(group: PlanarGroup) -> Stabilizer:
    mask = np.zeros(group.order, dtype=np.bool_)
    mask[group.identity] = True
    return Stabilizer("dead", "dead", mask, 1, None, 0.0, "dead")
