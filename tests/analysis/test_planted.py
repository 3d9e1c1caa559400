"""Stabilizers and families of planted dictionaries, learned imperfectly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.analysis import (
    autocorrelation,
    calibrate_tolerance,
    find_families,
    find_stabilizers,
    spectrum,
    translate,
)
from groupcc.analysis.families.group_fourier import GroupFourier
from groupcc.groups import group
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match
from helpers.dictionaries import blurred

GROUPS = ["C1", "C2", "C5", "C8", "D1", "D2", "D4", "D6", "D8", "D16", "D32"]


@pytest.mark.parametrize("cosine", [1.0, 0.99, 0.97, 0.951])
@pytest.mark.parametrize("name", ["C8", "D2", "D4", "D8", "D12", "D16"])
def test_default_tolerance_gives_exact_stabilizers(name, cosine):
    truth = planted(name, d_in=24, n_latents=16, seed=7)
    W = blurred(truth.atoms, cosine, seed=1)
    C = autocorrelation(W, truth.group)
    found = find_stabilizers(C, truth.group, calibrate_tolerance(C, truth.group))
    recovery = match(W, truth)
    assert len(recovery.recovered_latents()) == len(W)
    assert recovery.stabilizer_exact([s.mask for s in found]) == 1.0
    for stabilizer, mask in zip(found, truth.atom_stabilizers, strict=True):
        exact = truth.group.subgroup_of(mask)
        assert (stabilizer.name, stabilizer.label) == (exact.name, exact.label)
        if stabilizer.axis is not None and exact.axis is not None:
            period = 180 / exact.rotations
            assert abs((stabilizer.axis - exact.axis + period / 2) % period - period / 2) < 2


@pytest.mark.parametrize("name", ["D4", "D8", "D16", "D32"])
def test_no_mirrors_are_seen_in_white_latents(name):
    G = group(name)
    W = torch.randn(400, G.order, 24, generator=torch.Generator().manual_seed(0))
    found = find_stabilizers(autocorrelation(W, G), G, 0.2)
    assert {s.name for s in found} == {"C1"}


def test_autocorrelation_is_by_right_translation():
    # Fixed by one reflection from the right; from the left nothing fixes it.
    truth = planted("D5", d_in=6, n_latents=1, stabilizers=["D1@18°"], seed=0)
    G = truth.group
    h = truth.stabilizers[0].elements[1]
    C = autocorrelation(truth.base, G)[0]
    assert C[h] == pytest.approx(1.0, abs=1e-6)
    left = (truth.base[0][torch.tensor(G.cayley[h])] * truth.base[0]).sum()
    assert left < 0.8
    for k in range(G.order):
        direct = (translate(truth.base[0], G, k) * truth.base[0]).sum()
        assert C[k] == pytest.approx(float(direct), abs=1e-6)


def test_translation_composes():
    G = group("D5")
    d = torch.randn(10, 3)
    for h in range(10):
        for k in range(10):
            assert torch.equal(translate(translate(d, G, k), G, h), translate(d, G, int(G.cayley[h, k])))


def test_autocorrelation_of_extreme_scales_and_in_blocks(monkeypatch):
    G = group("D4")
    W = torch.randn(20, 8, 5, generator=torch.Generator().manual_seed(0))
    expected = autocorrelation(W, G)
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(autocorrelation(W * scale, G), expected)
    monkeypatch.setattr("groupcc.groups.autocorrelation.MAX_BLOCK_NUMBERS", 8 * 8 * 3)
    torch.testing.assert_close(autocorrelation(W, G), expected)
    assert torch.equal(autocorrelation(torch.zeros(2, 8, 5), G), torch.zeros(2, 8))


@pytest.mark.parametrize("name", GROUPS)
def test_fourier_correlation_is_the_direct_sum(name):
    G = group(name)
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, G.order, 3, generator=generator), torch.randn(5, G.order, 3, generator=generator)
    fourier = GroupFourier(G, a)
    fast = fourier.correlate(fourier.forward(a), fourier.forward(b))
    direct = torch.stack([torch.einsum("igc,jgc->ij", a, translate(b, G, h)) for h in range(G.order)], dim=2)
    assert (fast - direct).norm() / direct.norm() < 5e-6


@pytest.mark.parametrize("name", GROUPS)
def test_spectrum_is_power_per_irrep(name):
    G = group(name)
    W = torch.randn(3, G.order, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    shares = spectrum(autocorrelation(W, G), G)
    for column, irrep in enumerate(G.irreps()):
        x_hat = torch.einsum("lgc,gpq->lcpq", W, torch.tensor(irrep.matrices))
        power = irrep.power_weight(G.order) * x_hat.square().sum((1, 2, 3)) / W.square().sum((1, 2))
        torch.testing.assert_close(shares[:, column], power)
    torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("name", ["C1", "C6", "D1", "D4", "D8"])
def test_families_are_the_base_latents(name):
    truth = planted(name, d_in=24, n_latents=10, seed=5)
    G = truth.group
    order = torch.randperm(len(truth.atoms), generator=torch.Generator().manual_seed(0))
    W = blurred(truth.atoms, 0.9, seed=2)[order]
    stabilizers = find_stabilizers(autocorrelation(truth.atoms[order], G), G, 0.15)
    families = find_families(W, G, stabilizers=stabilizers)
    base = truth.atom_base[order]
    assert len(families) == 10
    assert families.sizes == sorted(families.sizes, reverse=True)
    assert torch.equal(families.labels[:, None] == families.labels[None], base[:, None] == base[None])
    clean = truth.atoms[order]
    for latent, family in enumerate(families.labels.tolist()):
        reference = families.references[family]
        moved = translate(clean[reference], G, int(families.poses[latent]))
        assert torch.equal(moved, clean[latent])
    # Exact mirrors let every pose of a mirror-symmetric shape be a rotation.
    has_mirror = np.array([stabilizers[families.references[f]].axis is not None for f in families.labels.tolist()])
    assert not G.reflections[families.poses.numpy()[has_mirror]].any()


def test_of_equivalent_poses_the_smallest():
    truth = planted("D8", d_in=24, n_latents=8, seed=2)
    G = truth.group
    stabilizers = find_stabilizers(autocorrelation(truth.atoms, G), G, 0.1)
    families = find_families(blurred(truth.atoms, 0.99, 0), G, stabilizers=stabilizers)
    checked = 0
    for latent, family in enumerate(families.labels.tolist()):
        reference = stabilizers[families.references[family]]
        if reference.axis is None:
            pose = int(families.poses[latent])
            assert pose == G.cayley[pose, np.flatnonzero(reference.mask)].min()
            checked += reference.order > 1
    assert checked >= 10


def test_a_chain_is_not_one_family():
    # Each latent shares half of itself with the next, turned by its own element; the ends have nothing in common.
    G = group("D7")
    parts = torch.randn(6, 14, 30, generator=torch.Generator().manual_seed(3))
    parts = parts / parts.flatten(1).norm(dim=1).view(-1, 1, 1)
    turns = [3, 9, 12, 5, 10]
    W = torch.stack([translate(parts[i] + parts[i + 1], G, h) for i, h in enumerate(turns)])
    families = find_families(W, G, threshold=0.4)
    assert sorted(families.sizes) in ([2, 3], [1, 1, 3])
    for latent, family in enumerate(families.labels.tolist()):
        reference = families.references[family]
        assert abs(latent - reference) <= 1
        # W_l = R_h (…) and W_ref = R_k (…), so W_l ≈ R_{h k⁻¹} W_ref.
        assert families.poses[latent] == G.cayley[turns[latent], G.inverse[turns[reference]]]
        assert families.similarity_to_reference[latent] >= 0.4


def test_a_latent_between_two_references_joins_the_nearer():
    G = group("C1")
    # Around 48 degrees there is one more, so that is the first reference and takes 23.5; 0 comes next and is nearer.
    angles = torch.tensor([-20.0, -10, -5, 0, 5, 10, 68, 58, 53, 48, 48, 43, 38, 23.5]).deg2rad()
    W = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None]
    families = find_families(W, G, threshold=0.9)
    assert families.labels.tolist() == [0] * 6 + [1] * 7 + [0]


def test_families_in_blocks_and_of_copies(monkeypatch):
    truth = planted("D4", d_in=24, n_latents=12, seed=6)
    W = torch.cat([blurred(truth.atoms, 0.97, 1), torch.zeros(2, 8, 24)])
    whole = find_families(W, truth.group)
    monkeypatch.setattr("groupcc.analysis.families.neighbours.MAX_PAIR_NUMBERS", 8 * 49)
    blocked = find_families(W, truth.group)
    for name in ("labels", "poses", "turns", "mirrored"):
        assert torch.equal(getattr(whole, name), getattr(blocked, name))
    assert whole.references == blocked.references
    assert whole.labels[-2:].tolist() == [-1, -1]
    assert sum(whole.sizes) == len(truth.atoms)
    everything_alike = find_families(torch.ones(300, 8, 4), truth.group, threshold=0.9)
    assert everything_alike.sizes == [300]
    assert everything_alike.poses.tolist() == [0] * 300
    nothing = find_families(torch.zeros(3, 8, 4), truth.group)
    assert (len(nothing), nothing.sizes, nothing.labels.tolist()) == (0, [], [-1, -1, -1])


def test_tolerance_finds_the_gap_and_stays_in_bounds():
    G = group("C2")

    def with_deficits(deficits):
        return torch.stack([torch.ones(len(deficits)), 1 - torch.tensor(deficits)], dim=1)

    # Symmetric latents at 0.12: no tolerance falls below them, and the gap begins beyond.
    assert calibrate_tolerance(with_deficits([0.12, 0.11, 0.12, 0.5]), G) == pytest.approx(0.25, abs=0.03)
    assert calibrate_tolerance(with_deficits([0.01, 0.17, 0.19, 0.2]), G) == 0.1
    assert calibrate_tolerance(with_deficits([0.09, 0.1, 0.2, 0.21]), G) == pytest.approx(0.15, abs=0.01)
    assert calibrate_tolerance(torch.zeros(0, 2), G) == 0.15
    assert calibrate_tolerance(torch.ones(4, 1), group("C1")) == 0.15
