"""Planted dictionaries with a symmetry broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.analysis import autocorrelation
from groupcc.errors import ArgumentError
from groupcc.zoo.broken import break_symmetry
from groupcc.zoo.planted import Break, planted
from groupcc.zoo.recovery import match


def test_missing_poses():
    whole = planted("D4", d_in=16, n_latents=3, stabilizers=["C1", "D1@90°", "C2"], seed=0)
    assert whole.broken == {}
    starts = set()
    for seed in range(30):
        truth = break_symmetry(whole, [0], poses=1 / 3, seed=seed)
        poses = truth.broken[0].poses
        assert truth.broken == {0: Break(poses, (), 0.0)}
        assert len(poses) == 3  # a third of 8
        first = [h for h in poses if (h - 1) % 8 not in poses]
        assert len(first) == 1  # one stretch, around the end too
        starts.add(first[0])
        left = [h for h in range(8) if h not in poses]
        assert truth.atom_pose[truth.atom_base == 0].tolist() == left
        kept = left + list(range(8, len(whole.atoms)))
        assert torch.equal(truth.atoms, whole.atoms[kept])
        assert np.array_equal(truth.atom_stabilizers, whole.atom_stabilizers[kept])
    assert starts == set(range(8))
    assert torch.equal(truth.base, whole.base)
    assert truth.stabilizers == whole.stabilizers
    _, latents = truth.sample(2000, n_active=2, seed=0)
    assert set(latents.indices.unique().tolist()) == set(range(len(truth.atoms)))


def test_poses_of_a_symmetric_latent_are_its_cosets():
    whole = planted("D4", d_in=16, n_latents=2, stabilizers=["C2"], seed=0)
    heads = [0, 1, 4, 5]
    for seed in range(12):
        poses = break_symmetry(whole, [1], poses=0.5, seed=seed).broken[1].poses
        assert poses in {(0, 1), (1, 4), (4, 5), (0, 5)}
    one = break_symmetry(whole, [1], poses=0.01)
    assert len(one.broken[1].poses) == 1
    most = break_symmetry(whole, [1], poses=0.99)
    assert len(most.broken[1].poses) == 3
    assert most.atom_pose[most.atom_base == 1].item() in heads


def test_weakened_poses_fire_weakly():
    whole = planted("D4", d_in=16, n_latents=3, seed=1)
    truth = break_symmetry(whole, [0], poses=0.25, strength=0.3, seed=4)
    assert torch.equal(truth.atoms, whole.atoms)
    _, before = whole.sample(500, seed=2)
    weak_acts, after = truth.sample(500, seed=2)
    assert torch.equal(before.indices, after.indices)
    weak = (truth.atom_base == 0) & torch.isin(truth.atom_pose, torch.tensor(truth.broken[0].poses))
    assert weak.sum() == 2
    torch.testing.assert_close(after.acts, before.acts * torch.where(weak[after.indices], 0.3, 1.0))
    assert (after.acts < 0.7).sum() == weak[after.indices].sum() > 0
    rebuilt = torch.einsum("nk,nkgd->ngd", after.acts, truth.atoms[after.indices])
    torch.testing.assert_close(weak_acts, rebuilt)


def test_missing_blocks_by_hand():
    """D2 = {e, r, m, rm}, numbers 0 to 3, and H = {e, r}: one block is missing, u; in pose m it is the block um."""
    whole = planted("D2", d_in=5, n_latents=1, stabilizers=["C2"], seed=0)
    assert whole.atom_pose.tolist() == [0, 2]
    times_m = [2, 3, 0, 1]
    seen = set()
    for seed in range(20):
        truth = break_symmetry(whole, [0], blocks=0.25, seed=seed)
        (u,) = truth.broken[0].blocks
        seen.add(u)
        norms = truth.atoms.norm(dim=2)
        assert (norms[0] == 0).nonzero().item() == u
        assert (norms[1] == 0).nonzero().item() == times_m[u]
        torch.testing.assert_close(truth.atoms.flatten(1).norm(dim=1), torch.ones(2))
        left = [g for g in range(4) if g != u]
        power = whole.base[0, left].square().sum()
        torch.testing.assert_close(truth.atoms[0, left], whole.base[0, left] / power.sqrt())
        assert truth.atom_stabilizers.tolist() == [[True, True, False, False]] * 2
    assert seen == {0, 1, 2, 3}


def test_blocks_move_with_the_pose_and_break_the_stabilizer():
    whole = planted("D8", d_in=12, n_latents=8, seed=3)
    symmetric = [f for f, s in enumerate(whole.stabilizers) if s.order > 1]
    truth = break_symmetry(whole, symmetric, blocks=1 / 3, strength=0.2, seed=0)
    G = truth.group
    assert sorted(truth.broken) == symmetric
    for atom, f, h in zip(truth.atoms, truth.atom_base.tolist(), truth.atom_pose.tolist(), strict=True):
        clean = whole.base[f][torch.tensor(G.cayley[:, h])]
        ratio = (atom * clean).sum(1) / clean.square().sum(1)
        weak = {int(G.cayley[u, G.inverse[h]]) for u in truth.broken[f].blocks} if f in truth.broken else set()
        assert len(weak) in (0, 5)  # a third of 16
        expected = torch.tensor([0.2 if g in weak else 1.0 for g in range(16)])
        torch.testing.assert_close(ratio / ratio.max(), expected)
    C = autocorrelation(truth.atoms, G).numpy()
    for atom, f in enumerate(truth.atom_base.tolist()):
        held = C[atom][truth.atom_stabilizers[atom]].min() > 0.999
        assert held == (f not in truth.broken)


def test_blocks_are_no_union_of_cosets():
    """Two of four blocks under C2 would keep it in two of the six ways to choose them; these are never drawn."""
    whole = planted("D2", d_in=5, n_latents=1, stabilizers=["C2"], seed=0)
    drawn = {break_symmetry(whole, [0], blocks=0.5, seed=seed).broken[0].blocks for seed in range(60)}
    assert drawn == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_breaks_add_up_and_match():
    whole = planted("D4", d_in=24, n_latents=6, seed=0)
    truth = break_symmetry(break_symmetry(whole, [0], poses=0.5), [1], blocks=0.25, poses=0.5)
    assert set(truth.broken) == {0, 1}
    assert truth.broken[1].poses
    assert truth.broken[1].blocks
    recovery = match(truth.atoms, truth)
    assert recovery.share(0.999) == 1.0
    again = break_symmetry(break_symmetry(whole, [0], poses=0.5), [1], blocks=0.25, poses=0.5)
    assert again.broken == truth.broken
    with pytest.raises(ArgumentError, match=r"latents: .*each once"):
        break_symmetry(truth, [1], poses=0.5)


@pytest.mark.parametrize(
    ("latents", "options", "message"),
    [
        ([0], {}, "poses: expected poses or blocks"),
        ([0], {"poses": 1.0}, r"poses: expected a number in \[0, 1\)"),
        ([0], {"blocks": -0.1}, r"blocks: expected a number in \[0, 1\)"),
        ([0], {"poses": 0.5, "strength": 1.0}, r"strength: expected a number in \[0, 1\)"),
        ([3], {"poses": 0.5}, "latents: .*from 0 to 2"),
        ([-1], {"poses": 0.5}, "latents: .*from 0 to 2"),
        ([True], {"poses": 0.5}, "latents: .*from 0 to 2"),
        ([0, 0], {"poses": 0.5}, "latents: .*each once"),
        ([0], {"blocks": 0.5}, "latents: .*0, whose stabilizer is trivial"),
        ([2], {"poses": 0.5}, "latents: .*2, whose stabilizer D4"),
    ],
)
def test_what_cannot_be_broken(latents, options, message):
    whole = planted("D4", d_in=8, n_latents=3, stabilizers=["C1", "C2", "D4"], seed=0)
    with pytest.raises(ArgumentError, match=message):
        break_symmetry(whole, latents, **options)
