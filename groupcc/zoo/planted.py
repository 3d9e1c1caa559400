"""Planted dictionaries: ground truth with known stabilizers, easy or hard to find."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from groupcc.errors import argument_error
from groupcc.groups import Group, PlanarGroup, PlanarSubgroup, as_planar
from groupcc.groups import group as make_group
from groupcc.groups.translate import translate
from groupcc.zoo.planted_drawing import choose_subgroups, coset_heads, draw_latent
from groupcc.zoo.planted_sampling import Following, draw_atoms, followers, frequencies

__all__ = [
    "AMPLITUDES",
    "Break",
    "PlantedDictionary",
    "PlantedLatents",
    "planted",
]

AMPLITUDES = (1.0, 2.0)
"""Active atoms have amplitudes uniform in this range (atoms have norm 1)."""


@dataclass(frozen=True, eq=False)
class PlantedLatents:
    """The truth behind a sample: which atoms were active, [N, n_active], and how strongly."""

    indices: torch.Tensor
    acts: torch.Tensor


@dataclass(frozen=True)
class Break:
    """How one base latent's symmetry is broken ([`break_symmetry`][groupcc.zoo.broken.break_symmetry]).

    - `poses`: the elements h whose atoms R_h d are affected. With `strength` 0 they are not in the dictionary, else
      they are active with `strength` times the amplitude. The other atoms are whole, so their stabilizers are exact.
    - `blocks`: the elements u at which the base latent's block d_u is multiplied by `strength`. The atom in pose h
      lacks the blocks g with gh = u, so the stabilizer holds for no atom.
    """

    poses: tuple[int, ...]
    blocks: tuple[int, ...]
    strength: float


@dataclass(frozen=True, eq=False)
class PlantedDictionary:
    """Base latents with known stabilizers and all their translates.

    - `base` float32 [F, G, D]: base latents of norm 1 over all blocks, R_h d = d exactly for h in the stabilizer.
    - `stabilizers`: the subgroup of each base latent.
    - `atoms` float32 [A, G, D]: the distinct translates R_h d_f, one for each left coset hH.
    - `atom_base`, `atom_pose` int64 [A]: f and h (the smallest of its coset) of each atom.
    - `broken`: the base latents whose symmetry is broken, and how; empty as planted. `base` and `stabilizers` keep the
      whole shape and its symmetry. `atoms`, again of norm 1, are what is in the data.
    """

    group: PlanarGroup
    base: torch.Tensor
    stabilizers: list[PlanarSubgroup]
    atoms: torch.Tensor
    atom_base: torch.Tensor
    atom_pose: torch.Tensor
    broken: dict[int, Break] = field(default_factory=dict, kw_only=True)

    @property
    def atom_stabilizers(self) -> npt.NDArray[np.bool_]:
        """The stabilizer of each atom, bool [A, G]: that of R_h d is h H h⁻¹. Of a broken one, that of the whole."""
        masks = np.zeros((len(self.atoms), self.group.order), dtype=np.bool_)
        cayley, inverse = self.group.cayley, self.group.inverse
        for atom, (f, h) in enumerate(zip(self.atom_base.tolist(), self.atom_pose.tolist(), strict=True)):
            elements = self.stabilizers[f].elements
            masks[atom, cayley[cayley[h, elements], inverse[h]]] = True
        return masks

    def sample(
        self,
        n: int,
        n_active: int = 3,
        noise: float = 0.0,
        seed: int = 0,
        *,
        partners: float = 0.0,
        neighbours: float = 0.0,
        zipf: float = 0.0,
        pose_zipf: float = 0.0,
    ) -> tuple[torch.Tensor, PlantedLatents]:
        """n orbits, each a sum of `n_active` distinct atoms: (orbit_acts float32 [n, G, D], what was active).

        Atoms are drawn without replacement and with equal probability, unless `zipf` or `pose_zipf` says otherwise.
        Amplitudes are uniform in AMPLITUDES. `noise`: standard deviation of added Gaussian noise, as a multiple of the
        signal's root mean square. Deterministic in `seed`.

        Latents that go together: the atom drawn second may follow the first, R_h d_f; the fourth the third; and so on.

        - `partners`: with this probability the follower becomes R_g d_f' with f' = f xor 1: base latents go in pairs, 0
          and 1, 2 and 3, …. g is drawn from hH_f, the poses in which R_h d_f is one and the same. At probability 1 the
          two would always be together, and a crosscoder need not tell them apart.
        - `neighbours`: with this probability the follower becomes R_gu d_f, u the group's smallest rotation: the same
          shape in the nearest pose.

        If there is no such atom, or if it is active already, the follower stays as it was drawn.

        Frequencies: an atom is drawn with the weight (f+1)^−`zipf` · (j+1)^−`pose_zipf`. j = 0, 1, … is its place among
        its base latent's atoms, in order of their poses. `zipf` makes later base latents rarer. `pose_zipf` makes
        orientations unequal, as they are in photographs.
        """
        self._check_sample(n_active, partners, neighbours)
        for name, value in (("noise", noise), ("zipf", zipf), ("pose_zipf", pose_zipf)):
            if not 0.0 <= value < math.inf:
                raise argument_error(name, expected="a number >= 0", got=value, remedy="0 turns it off.")
        atoms = len(self.atoms)
        generator = torch.Generator().manual_seed(seed)
        weights = frequencies(self.atom_base, zipf, pose_zipf)
        following = None
        if partners > 0 or neighbours > 0:
            candidates = followers(self.group, self.stabilizers, self.atom_base, self.atom_pose)
            following = Following(*candidates, partners, neighbours)
        indices = draw_atoms(atoms, n, n_active, weights, following, generator)
        low, high = AMPLITUDES
        acts = low + (high - low) * torch.rand(n, n_active, generator=generator)
        if self.broken:
            acts *= self._strength[indices]
        codes = torch.zeros(n, atoms).scatter_(1, indices, acts)
        orbit_acts = codes @ self.atoms.flatten(1)
        if noise > 0:
            scale = noise * orbit_acts.square().mean().sqrt()
            orbit_acts += scale * torch.randn(orbit_acts.shape, generator=generator)
        return orbit_acts.view(n, *self.atoms.shape[1:]), PlantedLatents(indices, acts)

    @property
    def _strength(self) -> torch.Tensor:
        """What multiplies the amplitude of each atom, [A]."""
        strength = torch.ones(len(self.atoms))
        for f, how in self.broken.items():
            weak = (self.atom_base == f) & torch.isin(self.atom_pose, torch.tensor(how.poses, dtype=torch.int64))
            strength[weak] = how.strength
        return strength

    def _check_sample(self, n_active: int, partners: float, neighbours: float) -> None:
        atoms = len(self.atoms)
        if not 1 <= n_active <= atoms:
            raise argument_error(
                "n_active",
                expected=f"from 1 to {atoms}, the number of atoms",
                got=n_active,
                remedy="Plant more latents or activate fewer.",
            )
        for name, value in (("partners", partners), ("neighbours", neighbours)):
            if not 0.0 <= value <= 1.0:
                raise argument_error(
                    name, expected="a probability from 0 to 1", got=value, remedy="0 draws the atoms independently."
                )
        if partners + neighbours > 1.0:
            raise argument_error(
                "neighbours",
                expected="partners + neighbours at most 1",
                got=partners + neighbours,
                remedy="An atom follows as a partner or as a neighbour, not as both.",
            )
        if n_active < 2 and partners + neighbours > 0:
            raise argument_error(
                "n_active",
                expected="at least 2 with partners or neighbours",
                got=n_active,
                remedy="It takes two active atoms to go together.",
            )


def planted(
    group: str | Group = "D8",
    d_in: int = 24,
    n_latents: int = 16,
    stabilizers: Sequence[str] | None = None,
    overlap: float = 0.0,
    seed: int = 0,
    *,
    smoothness: float = 0.0,
) -> PlantedDictionary:
    """A random dictionary closed under right translation, (R_h d)_g = d_{gh}, whose stabilizers are known exactly.

    A base latent with stabilizer H has one Gaussian block for each left coset gH, so it is white over the group unless
    it is made smooth. It is drawn again if any other translate comes within cosine 0.9 of it by accident.

    - `stabilizers`: labels or names of subgroups, cycled. A name that several subgroups have (`D1`) takes the next of
      them each time round. None: every type that the group has, at most 8 of them spread over the orders (D8 has 8:
      C1, C2, D1, C4, D2, C8, D4, D8).
    - `overlap` in [0, 1): a share √overlap of every base latent is one common direction, the same in all blocks. The
      rest is orthogonal to it. The expected cosine of two different atoms is `overlap`.
    - `smoothness` in degrees: standard deviation σ of the Gaussian over angle that white blocks are smoothed with.
      Neighbouring blocks are then alike, as those of a shape in pictures are. A latent with m-fold rotation repeats
      after 360°/m and is smoothed with σ/m. Its irreps of frequency k = jm then have amplitude exp(−(jσ)²/2), σ in
      radians, whatever m is, and no stabilizer is smoothed into a larger one. The expected cosine of two poses θ apart
      is exp(−(mθ/2σ)²) if poses lie closer than σ/m. The stabilizer stays exact. Neighbouring poses are near by design,
      so here a latent is drawn again if C(h) = ⟨d, R_h d⟩ is at least 0.75 on all of a larger subgroup.
    - `seed`: the result is deterministic in it.
    """
    G = as_planar(make_group(group), "a planted dictionary")
    if not 0.0 <= overlap < 1.0:
        raise argument_error(
            "overlap", expected="a number in [0, 1)", got=overlap, remedy="0 makes atoms orthogonal in expectation."
        )
    if not 0.0 <= smoothness <= 180.0:
        raise argument_error(
            "smoothness", expected="degrees from 0 to 180", got=smoothness, remedy="0 leaves the blocks white."
        )
    for name, value in (("d_in", d_in), ("n_latents", n_latents)):
        if value < 1:
            raise argument_error(name, expected="at least 1", got=value, remedy="Ask for one or more.")
    chosen = choose_subgroups(G, n_latents, stabilizers)
    generator = torch.Generator().manual_seed(seed)
    shared = torch.nn.functional.normalize(torch.randn(d_in, generator=generator, dtype=torch.float64), dim=0)
    base, atoms, atom_base, atom_pose = [], [], [], []
    for f, subgroup in enumerate(chosen):
        latent = draw_latent(G, subgroup, shared, overlap, smoothness, generator)
        base.append(latent)
        for h in coset_heads(G, subgroup):
            atoms.append(translate(latent, G, h))
            atom_base.append(f)
            atom_pose.append(h)
    return PlantedDictionary(
        G, torch.stack(base), chosen, torch.stack(atoms), torch.tensor(atom_base), torch.tensor(atom_pose)
    )
