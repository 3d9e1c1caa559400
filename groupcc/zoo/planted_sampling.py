"""Which planted atoms are active in an example: how often each is, and which go together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from groupcc.groups import PlanarGroup, Subgroup

__all__ = ["Following", "draw_atoms", "followers", "frequencies"]


class Following(NamedTuple):
    """Which atoms may follow an active one, and how probably.

    - `partner`, `beside`, `poses`: what `followers` returns.
    - `partners`, `neighbours`: the probability that an atom is followed by its partner, or by its neighbour.
    """

    partner: torch.Tensor
    beside: torch.Tensor
    poses: torch.Tensor
    partners: float
    neighbours: float


def frequencies(atom_base: torch.Tensor, zipf: float, pose_zipf: float) -> torch.Tensor | None:
    """Returns the weight of each atom, (f+1)^−zipf · (j+1)^−pose_zipf, float32 [A]; None if all are alike.

    f is the atom's base latent, and j its place among that latent's atoms, in order of their poses.
    """
    if zipf == 0 and pose_zipf == 0:
        return None
    place = torch.arange(len(atom_base)) - torch.searchsorted(atom_base, atom_base)
    return (atom_base + 1.0).pow(-zipf) * (place + 1.0).pow(-pose_zipf)


def draw_atoms(
    atoms: int,
    n: int,
    n_active: int,
    weights: torch.Tensor | None,
    following: Following | None,
    generator: torch.Generator,
) -> torch.Tensor:
    """Returns the active atoms of n examples out of `atoms` many, int64 [n, n_active], distinct in each example.

    Drawing without replacement by weights is by the largest u^(1/w), u uniform (Efraimidis and Spirakis 2006). If
    `following` is given, the atom drawn second, fourth, … may be replaced by a follower of the one before it; see
    `PlantedDictionary.sample`.
    """
    keys = torch.rand(n, atoms, generator=generator)
    if weights is not None:
        keys = keys.log() / weights
    indices = keys.topk(n_active, dim=1).indices
    if following is None:
        return indices
    partner, beside, poses, partners, neighbours = following
    for leader in range(0, n_active - 1, 2):
        leading = indices[:, leader]
        # Equal poses of a symmetric latent, gH, are drawn from alike: its partner is not symmetric in the same way.
        pose = poses[leading, torch.randint(poses.shape[1], (n,), generator=generator)]
        choice = torch.rand(n, generator=generator)
        follower = torch.where(choice < partners, partner[leading, pose], beside[leading, pose])
        follower[choice >= partners + neighbours] = -1
        taken = (indices == follower[:, None]).any(1) | (follower < 0)
        indices[:, leader + 1] = torch.where(taken, indices[:, leader + 1], follower)
    return indices


def followers(
    group: PlanarGroup, stabilizers: Sequence[Subgroup], atom_base: torch.Tensor, atom_pose: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Returns (partner, beside, poses), int64 [A, G] each.

    Column g of atom R_h d_f: `partner` is the atom of base latent f xor 1 in pose g, and `beside` the atom of base
    latent f in pose gu, u the group's smallest rotation; −1 if there is no such atom. `poses` holds the elements of
    the coset hH, in which R_h d_f is one and the same, repeated up to |G|.
    """
    F = len(stabilizers)
    at = torch.full((F + 1, group.order), -1)
    poses = torch.empty(len(atom_base), group.order, dtype=torch.int64)
    for atom, (f, h) in enumerate(zip(atom_base.tolist(), atom_pose.tolist(), strict=True)):
        coset = group.cayley[h, stabilizers[f].elements]
        at[f, coset] = atom
        poses[atom] = torch.from_numpy(np.resize(coset, group.order))
    other = atom_base ^ 1
    other[other >= F] = F
    beside = at[atom_base][:, torch.tensor(group.cayley[:, 1 % group.n])]
    return at[other], beside, poses
