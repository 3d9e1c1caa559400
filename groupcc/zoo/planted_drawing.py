"""Base latents drawn at random with exact stabilizers, white or smooth over angle."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from groupcc.errors import argument_error
from groupcc.groups import Group, PlanarGroup, PlanarSubgroup, Subgroup
from groupcc.groups.arrays import FloatArray
from groupcc.groups.translate import translates

__all__ = ["angular_filter", "choose_subgroups", "coset_heads", "draw_latent"]

_MAX_ACCIDENTAL_COSINE = 0.9
"""A draw is repeated if a translate outside the stabilizer is nearer than this."""

_MAX_ACCIDENTAL_SUBGROUP = 0.75
"""A smooth draw is repeated if a larger subgroup fits it to this. Its translates by a small angle are near by design.

Analysis accepts elements from 0.8 upwards: planted nearer to that, a stabilizer would be a matter of opinion.
"""


def choose_subgroups(G: PlanarGroup, n_latents: int, wanted: Sequence[str] | None) -> list[PlanarSubgroup]:
    """The stabilizer of each of `n_latents` base latents, see `planted`."""
    by_name: dict[str, list[PlanarSubgroup]] = {}
    for subgroup in G.subgroups():
        by_name.setdefault(subgroup.name, []).append(subgroup)
    if wanted is None:
        names = list(by_name)
        picks = np.unique(np.linspace(0, len(names) - 1, min(8, len(names))).round().astype(int))
        wanted = [names[i] for i in picks]
    if len(wanted) == 0:
        raise argument_error(
            "stabilizers", expected="at least one subgroup", got=list(wanted), remedy="None takes a varied set."
        )
    chosen = []
    for f in range(n_latents):
        turn, index = divmod(f, len(wanted))
        same_type = by_name.get(wanted[index])
        chosen.append(same_type[turn % len(same_type)] if same_type else G.subgroup_named(wanted[index]))
    return chosen


def coset_heads(G: Group, subgroup: Subgroup) -> list[int]:
    """The smallest element of each left coset hH."""
    return sorted({int(coset.min()) for coset in G.cayley[:, subgroup.elements]})


def angular_filter(G: PlanarGroup, degrees: float, fold: int = 1) -> FloatArray:
    """The matrix that scales the irreps of frequency k by λ_k = exp(−(k·σ/fold)²/2), σ = `degrees` in radians.

    float64 [G, G]: M[g, u] = Σ_ρ λ_k·d/(m|G|)·χ_ρ(g u⁻¹), with d the dimension of the real irrep ρ and m its
    `endomorphism_dim`. χ_ρ is a class function, so M commutes with right translation: what R_h fixes stays fixed. On a
    fine grid of rotations this is the convolution with a Gaussian over angle of standard deviation degrees/fold.
    """
    kernel = np.zeros(G.order)
    for irrep in G.irreps():
        scale = np.exp(-0.5 * (irrep.frequency / fold * np.deg2rad(degrees)) ** 2)
        kernel += scale * irrep.dim / (irrep.endomorphism_dim * G.order) * irrep.character
    return kernel[G.cayley[:, G.inverse]]


def draw_latent(
    G: PlanarGroup,
    subgroup: PlanarSubgroup,
    shared_D: torch.Tensor,
    overlap: float,
    smoothness: float,
    generator: torch.Generator,
) -> torch.Tensor:
    """A base latent with exactly this stabilizer, float32 [G, D], of norm 1; see `planted`."""
    head = torch.tensor(G.cayley[:, subgroup.elements].min(axis=1))
    outside = torch.tensor(~subgroup.mask)
    common = shared_D.expand(G.order, -1) / G.order**0.5
    smoothing = torch.from_numpy(angular_filter(G, smoothness, subgroup.rotations)) if smoothness > 0 else None
    for _ in range(100):
        own = torch.randn(G.order, len(shared_D), generator=generator, dtype=torch.float64)[head]
        if smoothing is not None:
            own = smoothing @ own
        if overlap > 0:
            own = own - (own * common).sum() * common
        own = own / own.norm()
        if smoothing is not None:
            distinct = not _fits_more(own, G, subgroup)
        else:
            others = translates(own, G)[outside]
            distinct = len(others) == 0 or float((others * own).sum((1, 2)).max()) < _MAX_ACCIDENTAL_COSINE
        if distinct:
            # Gathered again: rounding must not tell equal blocks apart.
            return (overlap**0.5 * common + (1 - overlap) ** 0.5 * own)[head].float()
    raise argument_error(
        "stabilizers",
        expected=f"subgroups that {len(shared_D)} channels can tell apart",
        got=f"{subgroup.label} with d_in={len(shared_D)}"
        + (f" and smoothness={smoothness:g}" if smoothing is not None else ""),
        remedy="Use a larger d_in." if smoothing is None else "Use a larger d_in or a smaller smoothness.",
    )


def _fits_more(own_GD: torch.Tensor, G: Group, subgroup: Subgroup) -> bool:
    """Whether a larger subgroup that contains this one nearly fixes the latent."""
    C = (translates(own_GD, G) * own_GD).sum((1, 2)).numpy()
    return any(
        larger.order > subgroup.order
        and larger.mask[subgroup.mask].all()
        and C[larger.mask].min() >= _MAX_ACCIDENTAL_SUBGROUP
        for larger in G.subgroups()
    )
