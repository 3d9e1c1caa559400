"""Planted dictionaries whose symmetry is broken on purpose: poses or decoder blocks missing or weakened."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from groupcc.errors import argument_error, is_whole
from groupcc.groups.translate import translate, translation_table
from groupcc.zoo.planted import Break, PlantedDictionary

__all__ = ["break_symmetry"]


def break_symmetry(
    truth: PlantedDictionary,
    latents: Sequence[int],
    *,
    poses: float = 0.0,
    blocks: float = 0.0,
    strength: float = 0.0,
    seed: int = 0,
) -> PlantedDictionary:
    """The dictionary with a share of these base latents' poses or decoder blocks missing, or weakened.

    - `latents`: which base latents, by index. None may be broken already.
    - `poses` in [0, 1): the share of a latent's distinct poses that are affected, to the nearest number, at least one
      and never all. They are consecutive in element order, from a random start and around the end. The latent needs at
      least two poses. With `strength` 0 their atoms leave the dictionary. Otherwise they are drawn as often as before,
      and are active with `strength` times the amplitude.
    - `blocks` in [0, 1): the share of a shape's |G| blocks d_u that are multiplied by `strength`, to the nearest
      number, at least one and never all. They are drawn until they are no union of left cosets of the stabilizer H, so
      that some elements of H no longer fix the shape; H needs two elements or more. The atoms are the translates R_h of
      what is left, scaled to norm 1. There are as many as before, one for each coset hH, although R_k d and d now
      differ for k in H.
    - `strength` in [0, 1): 0 is missing.

    `base`, `stabilizers` and `atom_stabilizers` stay those of the whole shapes: what the symmetry would be. `broken`
    says what is affected in each of `latents`. If only `poses` are, every atom that is left has its stabilizer exactly,
    and the family has gaps.

    Deterministic in `seed`. ArgumentError for a latent that cannot be broken as asked.
    """
    _check_shares(poses, blocks, strength)
    generator = torch.Generator().manual_seed(seed)
    atoms, keep, broken = truth.atoms.clone(), torch.ones(len(truth.atoms), dtype=torch.bool), dict(truth.broken)
    for f in latents:
        if not is_whole(f) or not 0 <= f < len(truth.stabilizers) or f in broken:
            raise argument_error(
                "latents",
                expected=f"whole base latents from 0 to {len(truth.stabilizers) - 1}, each once",
                got=list(latents),
                remedy="Break each latent in one call.",
            )
        own = (truth.atom_base == f).nonzero()[:, 0]
        affected = _stretch(truth, f, own, poses, generator) if poses > 0 else own[:0]
        weak = _blocks(truth, f, blocks, generator) if blocks > 0 else torch.zeros(truth.group.order, dtype=torch.bool)
        shape = truth.base[f] * torch.where(weak, strength, 1.0)[:, None]
        if blocks > 0:
            whole = (shape / shape.norm()).expand(len(own), -1, -1)
            atoms[own] = translate(whole, truth.group, truth.atom_pose[own])
        if strength == 0:
            keep[affected] = False
        broken[int(f)] = Break(
            tuple(truth.atom_pose[affected].sort().values.tolist()), tuple(weak.nonzero()[:, 0].tolist()), strength
        )
    return dataclasses.replace(
        truth,
        atoms=atoms[keep],
        atom_base=truth.atom_base[keep],
        atom_pose=truth.atom_pose[keep],
        broken=broken,
    )


def _count(share: float, of: int) -> int:
    return min(max(round(share * of), 1), of - 1)


def _stretch(
    truth: PlantedDictionary, f: int, own: torch.Tensor, share: float, generator: torch.Generator
) -> torch.Tensor:
    if len(own) < 2:
        raise argument_error(
            "latents",
            expected="base latents with two poses or more, for poses to be missing",
            got=f"{f}, whose stabilizer {truth.stabilizers[f].label} leaves it one",
            remedy="Break its blocks, or another latent.",
        )
    start = int(torch.randint(len(own), (), generator=generator))
    return own.roll(-start)[: _count(share, len(own))]


def _blocks(truth: PlantedDictionary, f: int, share: float, generator: torch.Generator) -> torch.Tensor:
    stabilizer, order = truth.stabilizers[f], truth.group.order
    if stabilizer.order < 2:
        raise argument_error(
            "latents",
            expected="base latents with a stabilizer of two elements or more, for blocks to break it",
            got=f"{f}, whose stabilizer is trivial",
            remedy="Its poses may be missing; or break another latent.",
        )
    weak = torch.zeros(order, dtype=torch.bool)
    translation = translation_table(truth.group)[torch.tensor(stabilizer.mask)]
    while (weak[translation] == weak).all():
        weak[:] = False
        weak[torch.randperm(order, generator=generator)[: _count(share, order)]] = True
    return weak


def _check_shares(poses: float, blocks: float, strength: float) -> None:
    for name, value in (("poses", poses), ("blocks", blocks), ("strength", strength)):
        if not 0.0 <= value < 1.0:
            raise argument_error(name, expected="a number in [0, 1)", got=value, remedy="1/3 is a third.")
    if poses == 0 and blocks == 0:
        raise argument_error(
            "poses", expected="poses or blocks above 0", got=poses, remedy="Say what is to be missing: poses=1/3."
        )
