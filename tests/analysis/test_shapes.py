"""Stabilizers, spectra and families of shapes whose symmetry is known from drawing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.analysis import (
    autocorrelation,
    calibrate_tolerance,
    find_families,
    find_stabilizers,
    interpolate,
    spectrum,
    translate,
)
from groupcc.groups import Group, group

# Channels look in irregular directions, so nothing but right translation can find a symmetry.
CHANNELS = np.sort(np.random.default_rng(0).uniform(0, 2 * np.pi, 48))


def orbit_of(profile, G: Group) -> torch.Tensor:
    """[G, D] of a shape given by its angular profile f(φ): block g is T_g f seen by the channels.

    (T_g f)(φ) = f(g⁻¹φ), from the geometry alone: undo the turn, then the mirror x → −x, which is φ → π − φ.
    """
    blocks = []
    for g in range(G.order):
        angle = CHANNELS - 2 * np.pi * (g % G.n) / G.n
        blocks.append(profile(np.pi - angle if g >= G.n else angle))
    return torch.tensor(np.stack(blocks), dtype=torch.float32)


def circle():
    return lambda phi: np.ones_like(phi)


def edge(axis_degrees, kappa=1.0):
    axis = np.deg2rad(axis_degrees)
    return lambda phi: np.exp(kappa * np.cos(phi - axis)) - 0.8


def line(axis_degrees, kappa=0.8):
    axis = np.deg2rad(axis_degrees)
    return lambda phi: np.exp(kappa * np.cos(2 * (phi - axis))) - 0.6


def hatch(axis_degrees):
    axis = np.deg2rad(axis_degrees)
    return lambda phi: np.cos(4 * (phi - axis)) + 0.5


def s_curve(turn_degrees=0.0):
    """Two-fold and chiral."""
    turn = np.deg2rad(turn_degrees)
    return lambda phi: np.cos(2 * (phi - turn)) + np.sin(4 * (phi - turn))


def comma(turn_degrees=0.0):
    """No symmetry at all, chiral."""
    turn = np.deg2rad(turn_degrees)
    return lambda phi: np.cos(phi - turn) + np.sin(2 * (phi - turn)) + 0.5 * np.cos(3 * (phi - turn) + 0.7)


def mirrored(profile):
    return lambda phi: profile(np.pi - phi)


def dictionary(profiles, G: Group) -> torch.Tensor:
    return torch.stack([orbit_of(profile, G) for profile in profiles])


def stabilizers_of(profiles, G, tolerance=0.03):
    return find_stabilizers(autocorrelation(dictionary(profiles, G), G), G, tolerance)


def test_translation_law_with_reflections():
    # The orbit of T_h x is R_h of the orbit of x, for every h and a chiral x.
    G = group("D6")
    d = orbit_of(comma(), G)
    for h in range(G.order):
        turn, mirror = 2 * np.pi * (h % G.n) / G.n, h >= G.n

        def moved(phi, turn=turn, mirror=mirror):
            angle = phi - turn
            return comma()(np.pi - angle if mirror else angle)

        torch.testing.assert_close(orbit_of(moved, G), translate(d, G, h))


def test_table_of_known_shapes_on_d4():
    G = group("D4")
    shapes = [circle(), hatch(0), line(90), edge(90), edge(0), s_curve(), comma()]
    found = stabilizers_of(shapes, G)
    assert [s.label for s in found] == ["D4", "D4", "D2@0°", "D1@90°", "D1@0°", "C2", "C1"]
    assert [s.kind for s in found] == ["invariant", "invariant", "180", "mirror", "mirror", "180", "none"]
    # By hand: a vertical edge under D4 is fixed by e and by x → −x (element 4) and by nothing else.
    assert np.flatnonzero(found[3].mask).tolist() == [0, 4]
    # A horizontal one by e and y → −y, which is x → −x and then a half turn (element 6).
    assert np.flatnonzero(found[4].mask).tolist() == [0, 6]
    assert [s.axis for s in found[:2]] == [None, None]


@pytest.mark.parametrize("name", ["C1", "C2", "C3", "C8", "D1", "D2", "D3"])
def test_small_groups(name):
    G = group(name)
    shapes = [circle(), comma(), edge(90)]
    expected = {
        "C1": ["none", "none", "none"],
        "D1": ["invariant", "none", "invariant"],
        "D2": ["invariant", "none", "mirror"],
        "D3": ["invariant", "none", "mirror"],
    }.get(name, ["invariant", "none", "none"])
    found = stabilizers_of(shapes, G)
    assert [s.kind for s in found] == expected
    assert found[0].order == G.order
    assert find_families(dictionary(shapes, G), G, threshold=0.99).sizes == [1, 1, 1]


@pytest.mark.parametrize(("name", "expected"), [("C8", ["C1", "C2", "C4"]), ("C6", ["C1", "C2", "C2"])])
def test_cyclic_groups_see_no_mirrors(name, expected):
    found = stabilizers_of([edge(33), line(33), hatch(10)], group(name))
    assert [s.name for s in found] == expected


def test_three_fold_is_other_rotation():
    found = stabilizers_of([lambda phi: np.cos(3 * phi) + np.sin(6 * phi)], group("D6"))
    assert (found[0].name, found[0].kind) == ("C3", "other-rotation")


@pytest.mark.parametrize("axis", [0.0, 3.0, 5.625, 17.0, 88.0, 93.0, 140.0, 179.0])
def test_mirrors_between_elements_are_found(axis):
    G = group("D16")
    found = stabilizers_of([line(axis), edge(axis), hatch(axis), s_curve(axis), comma(axis)], G)
    assert [s.name for s in found] == ["D2", "D1", "D4", "C2", "C1"]
    assert [s.kind for s in found] == ["180", "mirror", "90", "180", "none"]
    for stabilizer, period in zip(found[:3], (90, 180, 45), strict=True):
        assert stabilizer.axis is not None
        assert abs((stabilizer.axis - axis + period / 2) % period - period / 2) < 0.1
        lattice = G.subgroup_named(stabilizer.label)
        assert np.array_equal(lattice.mask, stabilizer.mask)
        assert lattice.axis is not None
        step = 180 / G.n
        assert abs((lattice.axis - axis + period / 2) % period - period / 2) <= step / 2 + 0.5


def test_an_axis_at_zero_is_not_its_period():
    """Rounding puts the peak a hair to either side of the horizontal; the period itself is outside [0, 180/m)."""
    G = group("D16")
    noise = 1e-6 * torch.randn(40, G.order, 48, generator=torch.Generator().manual_seed(0))
    for shape, period in ((edge, 180.0), (line, 90.0), (hatch, 45.0)):
        orbits = orbit_of(shape(0.0), G) + noise
        axes = [s.axis for s in find_stabilizers(autocorrelation(orbits, G), G, 0.15)]
        assert all(axis is not None and 0 <= axis < period / 2 for axis in axes)


def test_a_peak_between_elements_needs_interpolation():
    # Half way between two axes the neighbouring reflections alone would reject a narrow edge.
    G = group("D16")
    profile = edge(5.625, kappa=4.0)
    C = autocorrelation(dictionary([profile], G), G)
    assert C[0, G.n :].max() < 0.97
    found = find_stabilizers(C, G, 0.02)[0]
    assert found.name == "D1"
    assert found.score > 0.99


def test_every_mirror_of_a_subgroup_counts():
    # D2's mirrors average 0.83; the weaker one is what its score is. The other eight elements make the mean of C 0.
    G = group("D8")
    C = torch.full((1, 16), -3.56 / 12)
    C[0, [0, 4, 8, 12]] = torch.tensor([1.0, 0.9, 0.96, 0.7])
    assert [find_stabilizers(C, G, t)[0].name for t in (0.05, 0.2, 0.31)] == ["D1", "D1", "D2"]
    assert find_stabilizers(C, G, 0.31)[0].score == pytest.approx(0.7)


def test_readings_of_a_trained_net():
    # A line: 0.91 at 180 degrees, mirrors 0.92 and 0.93 on neighbouring reflections; an edge: negative at 180, 0.95.
    G = group("D16")
    generator = np.random.default_rng(1)

    def with_odd(profile, share):
        bent = generator.uniform(0, 2 * np.pi, 3)
        return lambda phi: (
            profile(phi) + share * (np.cos(phi - bent[0]) + np.cos(3 * phi - bent[1]) + np.cos(2 * phi - bent[2]))
        )

    axes = np.arange(0, 180, 7.5) + 5
    lines = [with_odd(line(a, 1.2), 0.26) for a in axes]
    edges = [with_odd(edge(a, 0.8), 0.1) for a in axes]
    W = dictionary([*lines, *edges, *[with_odd(circle(), 0.03)] * 6], G)
    C = autocorrelation(W, G)
    n = len(axes)
    assert 0.88 < C[:n, 8].min() < 0.92
    assert C[n : 2 * n, 8].max() < 0.0
    assert C[2 * n :].min() > 0.99
    found = find_stabilizers(C, G, calibrate_tolerance(C, G))
    assert [s.name for s in found] == ["D2"] * n + ["D1"] * n + ["D16"] * 6
    for stabilizer, axis in zip(found[:n], axes, strict=True):
        # The added part bends the line, and its axis with it.
        assert abs((stabilizer.axis - axis + 45) % 90 - 45) < 6


def test_spectrum_of_a_harmonic():
    G = group("D8")
    shares = spectrum(autocorrelation(dictionary([circle(), line(20, 0.5), s_curve(0)], G), G), G)
    torch.testing.assert_close(shares.sum(1), torch.ones(3))
    names = [irrep.name for irrep in G.irreps()]
    assert shares[0, names.index("A0")] == pytest.approx(1.0, abs=1e-5)
    even = [i for i, name in enumerate(names) if int(name.strip("AE'")) % 2 == 0]
    torch.testing.assert_close(shares[1, even].sum(), torch.tensor(1.0), atol=1e-5, rtol=0)
    # cos 2φ + sin 4φ under D8: both halves of its power sit in E2 and at the Nyquist frequency.
    assert shares[2, names.index("E2")] + shares[2, names.index("A4")] + shares[2, names.index("A4'")] > 0.99


def test_families_turns_and_mirror_images():
    G = group("D16")
    step = 360 / G.n
    turns = [0, 5, 11]
    shapes = [comma(t * step) for t in turns] + [mirrored(comma(-2 * step))] + [line(10), line(10 + 3 * step), circle()]
    W = dictionary(shapes, G)
    stabilizers = stabilizers_of(shapes, G)
    families = find_families(W, G, threshold=0.97, stabilizers=stabilizers)
    assert families.sizes == [4, 2, 1]
    assert families.labels.tolist() == [0, 0, 0, 0, 1, 1, 2]
    assert families.similarity_to_reference.min() > 0.999
    unit = W / W.flatten(1).norm(dim=1).view(-1, 1, 1)
    for latent, family in enumerate(families.labels.tolist()):
        pose = int(families.poses[latent])
        reference = unit[families.references[family]]
        assert float((translate(reference, G, pose) * unit[latent]).sum()) > 0.999
    assert bool(G.reflections[families.poses[3]]) != bool(G.reflections[families.poses[0]])
    assert families.mirrored.tolist().count(True) in (1, 3)
    # These lie on elements, so the interpolated turn is the element's own, also of mirrored ones.
    for latent in range(4):
        error = float(families.turns[latent]) - np.rad2deg(G.angles[int(families.poses[latent])])
        assert abs((error + 180) % 360 - 180) < 0.5
    # The line has C2 and two mirrors: a turn by 67.5° is unique in [0, 180).
    first, second = families.members(1)
    assert float(families.turns[second] - families.turns[first]) % 180 in (
        pytest.approx(67.5, abs=1),
        pytest.approx(112.5, abs=1),
    )
    assert families.members(0) == sorted(
        families.members(0), key=lambda m: (bool(families.mirrored[m]), float(families.turns[m]))
    )


def test_turns_of_off_lattice_edges_are_angles():
    # A step is 22.5 degrees, and hardly two of these differ by whole steps.
    G = group("D16")
    angles = np.arange(4.0, 360.0, 9.3)
    shapes = [edge(a) for a in angles]
    families = find_families(dictionary(shapes, G), G, threshold=0.95, stabilizers=stabilizers_of(shapes, G))
    assert families.sizes == [len(angles)]
    assert not families.mirrored.any()
    origin = angles[families.references[0]]
    for latent, angle in enumerate(angles):
        error = (float(families.turns[latent]) - (angle - origin) + 180) % 360 - 180
        assert abs(error) < 1
        # The pose is the nearest rotation, also where a reflection fits better.
        assert abs((float(families.poses[latent]) * 22.5 - (angle - origin) + 180) % 360 - 180) < 11.25 + 2


def test_interpolating_nothing_gives_nothing():
    # Of a dictionary that is dead throughout no autocorrelation is left, and some FFTs refuse an empty batch.
    assert interpolate(torch.zeros(0, 6, dtype=torch.float64), 4).shape == (0, 24)
