"""Planted dictionaries: exact stabilizers, distinct atoms, samples, matching."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.zoo.planted import AMPLITUDES, planted
from groupcc.zoo.recovery import match


@pytest.mark.parametrize("name", ["C1", "C6", "D1", "D2", "D4", "D8", "D12"])
@pytest.mark.parametrize("overlap", [0.0, 0.4])
def test_stabilizers_are_exact(name, overlap):
    truth = planted(name, d_in=12, n_latents=9, overlap=overlap, seed=3)
    G = truth.group
    torch.testing.assert_close(truth.base.flatten(1).norm(dim=1), torch.ones(9))
    for latent, subgroup in zip(truth.base, truth.stabilizers, strict=True):
        for h in range(G.order):
            same = torch.equal(latent[torch.tensor(G.cayley[:, h])], latent)  # (R_h d)_g = d_{gh}
            assert same == bool(subgroup.mask[h])


def test_atoms_are_the_distinct_translates_with_conjugate_stabilizers():
    truth = planted("D6", d_in=10, n_latents=12, seed=1)
    G = truth.group
    assert len(truth.atoms) == sum(G.order // s.order for s in truth.stabilizers)
    distances = torch.cdist(truth.atoms.flatten(1), truth.atoms.flatten(1))
    assert distances.fill_diagonal_(1).min() > 0.3
    conjugated = 0
    for atom, f, h, mask in zip(
        truth.atoms, truth.atom_base.tolist(), truth.atom_pose.tolist(), truth.atom_stabilizers, strict=True
    ):
        assert torch.equal(atom, truth.base[f][torch.tensor(G.cayley[:, h])])
        fixed = [torch.equal(atom[torch.tensor(G.cayley[:, k])], atom) for k in range(G.order)]
        assert fixed == mask.tolist()
        conjugated += not np.array_equal(mask, truth.stabilizers[f].mask)
    assert conjugated > 0


def test_default_has_the_eight_types_of_d8():
    truth = planted("D8", n_latents=16)
    names = [s.name for s in truth.stabilizers]
    assert sorted(set(names)) == ["C1", "C2", "C4", "C8", "D1", "D2", "D4", "D8"]
    assert names[:8] == names[8:]
    # The second round of a type that has several subgroups takes another axis.
    assert truth.stabilizers[names.index("D1")].label != truth.stabilizers[8 + names.index("D1")].label


def test_chosen_stabilizers():
    truth = planted("D4", n_latents=3, stabilizers=["D1@45°", "C2"])
    assert [s.label for s in truth.stabilizers] == ["D1@45°", "C2", "D1@45°"]
    with pytest.raises(ArgumentError, match=r"label: .*got D3"):
        planted("D4", stabilizers=["D3"])


def test_overlap_is_the_expected_cosine():
    truth = planted("D4", d_in=40, n_latents=24, overlap=0.3, seed=0)
    cosines = truth.base.flatten(1) @ truth.base.flatten(1).T
    off = cosines[~torch.eye(24, dtype=torch.bool)]
    assert off.mean() == pytest.approx(0.3, abs=0.02)


def test_samples():
    truth = planted("D4", d_in=8, n_latents=5, seed=2)
    acts, latents = truth.sample(200, n_active=3, seed=5)
    assert acts.shape == (200, 8, 8)
    assert acts.dtype == torch.float32
    low, high = AMPLITUDES
    assert latents.acts.min() >= low
    assert latents.acts.max() <= high
    assert all(len(set(row)) == 3 for row in latents.indices.tolist())
    rebuilt = torch.einsum("nk,nkgd->ngd", latents.acts, truth.atoms[latents.indices])
    torch.testing.assert_close(acts, rebuilt)
    again, _ = truth.sample(200, n_active=3, seed=5)
    assert torch.equal(acts, again)
    noisy, _ = truth.sample(200, n_active=3, noise=0.5, seed=5)
    ratio = (noisy - acts).square().mean().sqrt() / acts.square().mean().sqrt()
    assert ratio == pytest.approx(0.5, rel=0.05)


def test_matching():
    truth = planted("D4", d_in=16, n_latents=6, seed=4)
    A = len(truth.atoms)
    W = torch.cat([2 * truth.atoms[:-1], -truth.atoms[-1:], truth.atoms[:1], torch.zeros(1, 8, 16)])
    recovery = match(W, truth)
    assert recovery.share() == pytest.approx((A - 1) / A)
    assert recovery.share_of_shapes() == pytest.approx(5 / 6)  # all atoms of a shape, or it is missed
    assert match(truth.atoms, truth).share_of_shapes() == 1.0
    assert recovery.share_of_shapes(threshold=2.0) == 0.0
    assert recovery.recovered_latents() == [*range(A - 1), A]
    assert recovery.latent_atom[A] == 0
    truth_masks = truth.atom_stabilizers
    masks = np.concatenate([truth_masks, truth_masks[:1], np.zeros((1, 8), dtype=bool)])
    assert recovery.stabilizer_exact(masks) == 1.0
    masks[2] = ~masks[2]
    assert recovery.stabilizer_exact(masks) == pytest.approx(1 - 1 / A)


def test_bad_arguments():
    for options in ({"overlap": 1.0}, {"overlap": -0.1}, {"d_in": 0}, {"n_latents": 0}, {"stabilizers": []}):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            planted("D4", **options)
    truth = planted("D2", n_latents=1, stabilizers=["D2"])
    with pytest.raises(ArgumentError, match="n_active"):
        truth.sample(3, n_active=2)
    with pytest.raises(ArgumentError, match="W_dec"):
        match(torch.zeros(3, 4, 5), truth)


def test_one_channel_cannot_pretend():
    # Three numbers with mean zero on C3: distinct translates exist, and they must stay distinct.
    truth = planted(group("C3"), d_in=1, n_latents=4, stabilizers=["C1"], seed=0)
    cosines = truth.atoms.flatten(1) @ truth.atoms.flatten(1).T
    same_base = truth.atom_base[:, None] == truth.atom_base[None]
    assert cosines[same_base & ~torch.eye(12, dtype=torch.bool)].max() < 0.9
