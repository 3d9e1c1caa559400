"""Which planted atoms are active in an example: how often each is, and which go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from groupcc.zoo.planted import PlantedDictionary

__all__ = ["draw_atoms", "frequencies"]


def frequencies(truth: PlantedDictionary, zipf: float, pose_zipf: float) -> torch.Tensor | None:
    """The weight of each atom, (f+1)^−zipf · (j+1)^−pose_zipf, float32 [A], or None where all are alike.

    f is its base latent and j its place among that one's atoms, in order of their poses.
    """
    if zipf == 0 and pose_zipf == 0:
        return None
    base = truth.atom_base
    place = torch.arange(len(base)) - torch.searchsorted(base, base)
    return (base + 1.0).pow(-zipf) * (place + 1.0).pow(-pose_zipf)


def draw_atoms(
    truth: PlantedDictionary,
    n: int,
    n_active: int,
    weights: torch.Tensor | None,
    partners: float,
    neighbours: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """The active atoms of n examples, int64 [n, n_active], distinct in each; see `PlantedDictionary.sample`.

    Drawing without replacement by weights is by the largest u^(1/w), u uniform (Efraimidis and Spirakis 2006).
    """
    keys = torch.rand(n, len(truth.atoms), generator=generator)
    if weights is not None:
        keys = keys.log() / weights
    indices = keys.topk(n_active, dim=1).indices
    if partners == 0 and neighbours == 0:
        return indices
    partner, beside, poses = _followers(truth)
    for leader in range(0, n_active - 1, 2):
        atoms = indices[:, leader]
        # Equal poses of a symmetric latent, gH, are drawn from alike: its partner is not symmetric in the same way.
        pose = poses[atoms, torch.randint(truth.group.order, (n,), generator=generator)]
        choice = torch.rand(n, generator=generator)
        follower = torch.where(choice < partners, partner[atoms, pose], beside[atoms, pose])
        follower[choice >= partners + neighbours] = -1
        taken = (indices == follower[:, None]).any(1) | (follower < 0)
        indices[:, leader + 1] = torch.where(taken, indices[:, leader + 1], follower)
    return indices


def _followers(truth: PlantedDictionary) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each atom and each element g of its coset: its partner in g and its own base latent in gu, u a step of
    rotation (−1 where there is none), and these elements, repeated up to |G|; int64 [A, G] each."""
    G = truth.group
    F = len(truth.stabilizers)
    at = torch.full((F + 1, G.order), -1)
    poses = torch.empty(len(truth.atoms), G.order, dtype=torch.int64)
    for atom, (f, h) in enumerate(zip(truth.atom_base.tolist(), truth.atom_pose.tolist(), strict=True)):
        coset = G.cayley[h, truth.stabilizers[f].elements]
        at[f, coset] = atom
        poses[atom] = torch.from_numpy(np.resize(coset, G.order))
    other = truth.atom_base ^ 1
    other[other >= F] = F
    beside = at[truth.atom_base][:, torch.tensor(G.cayley[:, 1 % G.n])]
    return at[other], beside, poses
