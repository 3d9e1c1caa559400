"""Planted dictionaries made hard: smooth over angle, latents that go together, unequal frequencies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.analysis import autocorrelation, spectrum
from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.zoo.planted import planted
from groupcc.zoo.planted_drawing import angular_filter

ROOM = {"n_active": 2, "seed": 3}


def shares(latents, atoms):
    """How often each atom is active, as a share of all active atoms."""
    return torch.bincount(latents.indices.flatten(), minlength=atoms).double() / latents.indices.numel()


def pairs(latents):
    """Share of the examples of each unordered pair of active atoms."""
    found, counts = latents.indices.sort(1).values.unique(dim=0, return_counts=True)
    return {tuple(pair): count / len(latents.indices) for pair, count in zip(found.tolist(), counts, strict=True)}


def test_what_was_planted_before_is_planted_still():
    truth = planted("D4", d_in=6, n_latents=5, overlap=0.2, seed=7)
    acts, latents = truth.sample(4, noise=0.1, seed=8)
    torch.testing.assert_close(truth.base[2, 3, :3], torch.tensor([0.20907553, -0.01283425, 0.00391563]))
    assert latents.indices.tolist() == [[2, 10, 6], [15, 4, 17], [13, 5, 11], [7, 10, 12]]
    torch.testing.assert_close(acts[1, 2, :3], torch.tensor([0.16899976, 0.54254854, -0.28976130]))


def test_filter_by_hand():
    """C4 has frequencies 0, 1 (both ways round) and 2; in D2 only g and g·180° mix."""
    one, two = np.exp(-0.5 * np.deg2rad(40) ** 2), np.exp(-0.5 * np.deg2rad(80) ** 2)
    row = [(1 + 2 * one + two) / 4, (1 - two) / 4, (1 - 2 * one + two) / 4, (1 - two) / 4]
    assert angular_filter(group("C4"), 40.0)[0] == pytest.approx(row)
    same, other = (1 + one) / 2, (1 - one) / 2
    mixed = [[same, other, 0, 0], [other, same, 0, 0], [0, 0, same, other], [0, 0, other, same]]
    np.testing.assert_allclose(angular_filter(group("D2"), 40.0), mixed, atol=1e-12)
    np.testing.assert_allclose(angular_filter(group("D2"), 80.0, fold=2), mixed, atol=1e-12)


def test_filter_is_a_gaussian_over_angle():
    G = group("D36")
    angle = np.arange(-18, 18) * 10.0
    gaussian = np.exp(-0.5 * (angle / 25) ** 2)
    smoothing = angular_filter(G, 25.0)
    np.testing.assert_allclose(smoothing[0, np.arange(-18, 18) % 36], gaussian / gaussian.sum(), atol=1e-9)
    assert abs(smoothing[:36, 36:]).max() < 1e-12
    translation = G.right_translation[[5, 41]]
    for h in translation:  # commutes with right translation
        np.testing.assert_allclose(smoothing[np.ix_(h, h)], smoothing, atol=1e-12)


@pytest.mark.parametrize("name", ["C1", "C8", "D1", "D4", "D12", "D16"])
@pytest.mark.parametrize("overlap", [0.0, 0.3])
def test_smooth_stabilizers_are_exact(name, overlap):
    truth = planted(name, d_in=24, n_latents=16, overlap=overlap, seed=1, smoothness=30.0)
    G = truth.group
    torch.testing.assert_close(truth.base.flatten(1).norm(dim=1), torch.ones(16))
    C = autocorrelation(truth.base, G).numpy()
    for latent, subgroup, C_G in zip(truth.base, truth.stabilizers, C, strict=True):
        same = [torch.equal(latent[torch.tensor(G.cayley[:, h])], latent) for h in range(G.order)]
        assert same == subgroup.mask.tolist()
        if overlap == 0:
            larger = [s for s in G.subgroups() if s.order > subgroup.order and s.mask[subgroup.mask].all()]
            assert all(C_G[s.mask].min() < 0.75 for s in larger)


def test_power_falls_with_frequency():
    """A latent without symmetry has d² numbers a channel at an irrep of D8, one with C2 at those of even frequency."""
    truth = planted("D8", d_in=200, n_latents=24, stabilizers=["C1", "C2"], seed=0, smoothness=35.0)
    found = spectrum(autocorrelation(truth.base, truth.group), truth.group)
    for first, fold in ((0, 1), (1, 2)):
        power = torch.tensor(
            [
                irrep.dim**2 * np.exp(-((irrep.frequency / fold * np.deg2rad(35)) ** 2)) * (irrep.frequency % fold == 0)
                for irrep in truth.group.irreps()
            ]
        )
        torch.testing.assert_close(found[first::2].mean(0), (power / power.sum()).to(found), atol=0.01, rtol=0)


def test_neighbouring_poses_are_as_near_as_said():
    truth = planted("D32", d_in=300, n_latents=8, stabilizers=["C1", "C2"], seed=2, smoothness=20.0)
    C = autocorrelation(truth.base, truth.group)
    for steps in (1, 2, 3):
        angle = steps * 11.25
        for first, m in ((0, 1), (1, 2)):
            expected = np.exp(-((m * angle / 40) ** 2))
            assert C[first::2, steps].mean() == pytest.approx(expected, abs=0.05)


def test_a_smooth_latent_that_cannot_have_its_stabilizer():
    with pytest.raises(ArgumentError, match=r"stabilizers: .*C1 with d_in=2 and smoothness=180.*smaller smoothness"):
        planted("C8", d_in=2, n_latents=1, stabilizers=["C1"], smoothness=180.0)


def test_partners_by_hand():
    """D4, H = {e, m}, e = 0 and m = 4: pose 1 of latent 0 is also pose 1·m = 5, so its partners are in pose 1 or 5."""
    truth = planted("D4", d_in=16, n_latents=2, stabilizers=["D1@90°", "C1"], seed=0)
    assert truth.stabilizers[0].elements == [0, 4]
    assert truth.atom_pose.tolist() == [0, 1, 2, 3, *range(8)]
    _, latents = truth.sample(8000, partners=1.0, **ROOM)
    found = pairs(latents)
    # Latent 1 in pose h is atom 4 + h; atoms 0 to 3 are latent 0 in the poses {0, 4}, {1, 5}, {2, 6} and {3, 7}.
    assert set(found) == {(0, 4), (0, 8), (1, 5), (1, 9), (2, 6), (2, 10), (3, 7), (3, 11)}
    assert all(share == pytest.approx(1 / 8, abs=0.02) for share in found.values())


def test_neighbours_by_hand():
    """D3, H = {e, m·120°} = {0, 4}: poses 0, 1, 2, all neighbours; latent 1 has three in each half."""
    truth = planted("D3", d_in=16, n_latents=2, stabilizers=["D1@150°", "C1"], seed=0)
    assert truth.stabilizers[0].elements == [0, 4]
    assert truth.atom_pose.tolist() == [0, 1, 2, *range(6)]
    _, latents = truth.sample(9000, neighbours=1.0, **ROOM)
    found = pairs(latents)
    assert set(found) == {(0, 1), (0, 2), (1, 2), (3, 4), (3, 5), (4, 5), (6, 7), (6, 8), (7, 8)}
    assert all(share == pytest.approx(1 / 9, abs=0.02) for share in found.values())


def test_what_follows_does_so_with_the_probability_given():
    truth = planted("D8", d_in=24, n_latents=5, stabilizers=["C1"], seed=0)
    for options in ({"partners": 0.5}, {"neighbours": 0.5}, {"partners": 0.3, "neighbours": 0.2}):
        _, latents = truth.sample(20_000, n_active=4, seed=1, **options)
        assert all(len(set(row)) == 4 for row in latents.indices[:500].tolist())
        f, h = truth.atom_base[latents.indices], truth.atom_pose[latents.indices]
        step = (h[:, ::2] - h[:, 1::2]).abs()
        beside = (f[:, ::2] == f[:, 1::2]) & ((step == 1) | (step == 7)) & (h[:, ::2] // 8 == h[:, 1::2] // 8)
        together = ((f[:, ::2] ^ 1) == f[:, 1::2]) & (step == 0)
        # By chance alone either holds in 1 of 79 to 2 of 79 examples. The last of five latents has no partner.
        assert ((f[:, ::2] == 4) & (step == 0)).double().mean() < 0.02
        assert together.double().mean() == pytest.approx(0.8 * options.get("partners", 0), abs=0.03)
        assert beside.double().mean() == pytest.approx(options.get("neighbours", 0), abs=0.03)


def test_an_active_atom_does_not_follow_again():
    truth = planted("D2", d_in=8, n_latents=2, stabilizers=["D2"], seed=0)
    _, latents = truth.sample(50, partners=1.0, **ROOM)
    assert (latents.indices.sort(1).values == torch.tensor([0, 1])).all()
    invariant = planted("D4", d_in=8, n_latents=3, stabilizers=["D4"], seed=0)
    _, apart = invariant.sample(50, neighbours=1.0, **ROOM)  # one pose: nothing beside it
    assert torch.equal(apart.indices, invariant.sample(50, **ROOM)[1].indices)


def test_frequencies_by_hand():
    """D2: latent 0 is invariant (one atom), latent 1 has C2 and two poses; weights 1, 1/2, 1/2 and so on."""
    truth = planted("D2", d_in=8, n_latents=2, stabilizers=["D2", "C2"], seed=0)
    for options, weights in (
        ({"zipf": 1.0}, [1, 1 / 2, 1 / 2]),
        ({"pose_zipf": 1.0}, [1, 1, 1 / 2]),
        ({"zipf": 2.0, "pose_zipf": 1.0}, [1, 1 / 4, 1 / 8]),
    ):
        _, latents = truth.sample(20_000, n_active=1, seed=2, **options)
        expected = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        torch.testing.assert_close(shares(latents, 3), expected, atol=0.012, rtol=0)
    # Two without replacement: 1 then 2 or 2 then 1, 1/4 · (1/2)/(3/2) each.
    _, latents = truth.sample(20_000, zipf=1.0, **ROOM)
    assert pairs(latents)[1, 2] == pytest.approx(1 / 6, abs=0.012)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partners": 1.5}, "partners: expected a probability"),
        ({"neighbours": -0.1}, "neighbours: expected a probability"),
        ({"partners": float("nan")}, "partners: expected a probability"),
        ({"partners": 0.6, "neighbours": 0.6}, "neighbours: expected partners"),
        ({"partners": 0.5, "n_active": 1}, "n_active: expected at least 2"),
        ({"zipf": -1.0}, "zipf: expected a number >= 0"),
        ({"pose_zipf": float("inf")}, "pose_zipf: expected a number >= 0"),
        ({"noise": -0.1}, "noise: expected a number >= 0"),
    ],
)
def test_bad_samples(options, message):
    truth = planted("D2", d_in=8, n_latents=3, seed=0)
    with pytest.raises(ArgumentError, match=message):
        truth.sample(3, **({"n_active": 2} | options))


@pytest.mark.parametrize("smoothness", [-1.0, 181.0, float("nan")])
def test_bad_smoothness(smoothness):
    with pytest.raises(ArgumentError, match="smoothness: expected degrees"):
        planted("D2", smoothness=smoothness)
