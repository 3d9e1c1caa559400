"""The known bank: formulas with the symmetry they claim, a net that is equivariant, a truth that the orbits obey."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from groupcc import harvest
from groupcc.analysis import autocorrelation
from groupcc.errors import ArgumentError
from groupcc.groups import as_action, group
from groupcc.models.forms.tied import translates
from groupcc.zoo import known_bank
from groupcc.zoo.bank import RIVALRY
from groupcc.zoo.photographs import photographs
from groupcc.zoo.shapes import SHAPES, kernel, offsets, stabilizer, window

SIZE = 25

# By hand, not from the formulas: type under D16, number of distinct filters.
EXPECTED = {
    "line": ("D2", 8),
    "edge": ("D1", 16),
    "curve": ("D1", 16),
    "circle": ("D16", 1),
    "corner": ("D1", 16),
    "hatch": ("D4", 4),
    "spiral": ("C1", 32),
    "S-curve": ("C2", 16),
    "high-low frequency": ("D1", 16),
    "colour blob": ("D16", 1),
}


@pytest.fixture(scope="module")
def bank():
    return known_bank()


def own_autocorrelation(name, G):
    """cos(w, T_h w) of the filters themselves, weighed as their normalisation is, [G]."""
    v = window(offsets(SIZE))
    root = np.sqrt(np.where(v > 0, v / v.sum(), np.inf))
    filters = np.stack([(kernel(SHAPES[name], G, h, SIZE) / root).ravel() for h in range(G.order)])
    np.testing.assert_allclose((filters**2).sum(1), 1, rtol=1e-9)
    return filters @ filters[0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("spec", ["D16", "C8", "D6"])
def test_stabilizers_are_those_of_the_filters(name, spec):
    G = group(spec)
    subgroup = stabilizer(SHAPES[name], G)
    C = own_autocorrelation(name, G)
    assert C[subgroup.mask].min() > 1 - 1e-9
    assert C[~subgroup.mask].max(initial=-1) < 0.8
    if spec == "D16":
        assert (subgroup.name, G.order // subgroup.order) == EXPECTED[name]


def test_polarity_and_chirality():
    G = group("D16")
    half = G.n // 2
    assert own_autocorrelation("edge", G)[half] == pytest.approx(-1)
    assert own_autocorrelation("line", G)[half] == pytest.approx(1)
    for name in ("spiral", "S-curve"):
        assert own_autocorrelation(name, G)[G.reflections].max() < 0.6


@pytest.mark.parametrize("name", SHAPES)
def test_the_filter_at_an_element_is_the_transformed_filter(name):
    # Against the transform of images, which knows nothing of the formulas; both sides go through its low-pass.
    G = group("D16")
    filters = torch.stack([torch.from_numpy(kernel(SHAPES[name], G, h, SIZE)) for h in range(G.order)])[:, None]
    turned = as_action(G).transform(filters[:1])[0, :, 0]
    smooth = as_action(G).transform(filters, [0])[:, 0, 0]
    error = (turned - smooth).flatten(1).norm(dim=1) / smooth.flatten(1).norm(dim=1)
    assert error[torch.from_numpy(G.exact.copy())].max() < 1e-6
    assert error.max() < (0.05 if name == "spiral" else 0.02)


def test_filters_are_blind_to_brightness_and_contrast(bank):
    x = torch.rand(1, 3, 61, 61, generator=torch.Generator().manual_seed(0))
    r = bank.filters.responses(x)[..., 7:-7, 7:-7]
    assert r.abs().max() <= 1
    brighter = bank.filters.responses(0.5 * x + 0.3)[..., 7:-7, 7:-7]
    torch.testing.assert_close(brighter, r, atol=0.01, rtol=0)  # but for the floor
    assert bank.filters(torch.full((1, 3, 61, 61), 0.7))[..., 8:-8, 8:-8].abs().max() == 0


def test_each_shape_is_seen_by_its_own_filter():
    """A filter shown as an image: no other shape or pose responds as much, and few others stand beside it."""
    bank = known_bank(kinds=list(SHAPES)[::-1])  # the colour blob first: channels are in the order of the kinds
    truth = bank.truth
    scales = bank.filters.scale[:, 0, 0]
    for atom in range(len(truth.atoms)):
        kind, h = truth.kinds[truth.atom_base[atom]], int(truth.atom_pose[atom])
        w = torch.from_numpy(kernel(SHAPES[kind], truth.group, h, SIZE) / window(offsets(SIZE)).clip(1e-6)).float()
        w = 0.4 * w / w.abs().max()
        colours = (1, 0, -1) if SHAPES[kind].plane == "opponent" else (1, 1, 1)
        x = 0.5 + torch.stack([colour * w for colour in colours])[None]
        r = bank.filters.responses(x)[0, :, 6, 6]
        assert r.argmax() == atom
        assert r[atom] > 0.95
        z = r / scales
        alone = (z - (RIVALRY * z.max()).clamp_min(1)).relu()
        assert alone[truth.atom_base != truth.atom_base[atom]].count_nonzero() <= 2


def test_every_shape_has_its_share_of_the_photographs(bank):
    power = torch.zeros(len(bank.truth.atoms))
    for _, pixels in photographs():
        side = min(pixels.shape[:2])
        small = Image.fromarray(pixels[:side, :side]).resize((141, 141), Image.Resampling.BOX)
        x = torch.from_numpy(np.asarray(small).copy()).permute(2, 0, 1)[None].float() / 255
        power += bank.filters(x)[..., 8:-8, 8:-8].square().sum((0, 2, 3))
    share = torch.zeros(len(EXPECTED)).index_add_(0, bank.truth.atom_base, power) / power.sum()
    assert share.min() > 0.04
    assert share.max() < 0.25


def test_truth_is_closed_and_has_the_stabilizers_that_it_says(bank):
    truth = bank.truth
    G = truth.group
    assert [s.name for s in truth.stabilizers] == [EXPECTED[kind][0] for kind in truth.kinds]
    assert torch.bincount(truth.atom_base).tolist() == [EXPECTED[kind][1] for kind in truth.kinds]
    torch.testing.assert_close(truth.atoms.flatten(1).norm(dim=1), torch.ones(len(truth.atoms)))
    C = autocorrelation(truth.atoms, G).numpy()
    masks = truth.atom_stabilizers
    assert C[masks].min() > 1 - 1e-5
    assert C[~masks].max() < 0.5
    # Every translate of every base is an atom.
    cosines = translates(truth.base, G).flatten(1) @ truth.atoms.flatten(1).T
    assert cosines.max(1).values.min() > 1 - 1e-5
    # The block of an atom for the identity is the column of its own channel.
    columns = bank.mix.weight[:, :, 0, 0].T
    torch.testing.assert_close(truth.atoms[:, 0] * G.order**0.5, columns)


@pytest.mark.parametrize("spec", ["D4", "D3", "C6"])
def test_orbits_are_the_atoms_times_what_the_filters_see(spec):
    """a = Σ φ(x)·d over all blocks, on a photograph; D4 is exact, and a reflection tells R_h from its inverse."""
    bank = known_bank(spec, kinds=["curve", "spiral", "S-curve", "hatch", "circle"], seed=3)
    truth = bank.truth
    pixels = dict(photographs("held_out"))["coffee"]
    options = dict(group=spec, positions="random:200", input_size=97, dtype="float32", progress=False)
    acts, codes = (
        harvest(bank, layer, [pixels], **options).take(torch.arange(200)).float() for layer in ("mix", "filters")
    )
    expected = torch.einsum("na,agd->ngd", codes[:, 0], truth.atoms) * truth.group.order**0.5
    fvu = (acts - expected).square().sum((0, 2)) / (acts - acts.mean(0)).square().sum((0, 2))
    exact = torch.from_numpy(truth.group.exact.copy())
    assert codes[:, 0].amax(0).gt(0).double().mean() > 0.8
    assert fvu[exact].max() < 1e-7
    assert fvu.max() < 0.1


def test_mixing_and_control():
    state = torch.get_rng_state()
    bank = known_bank("D4", superposition=2.0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert bank.mix.weight.shape[:2] == (round(len(bank.truth.atoms) / 2), len(bank.truth.atoms))
    torch.testing.assert_close(bank.mix.weight.square().sum((0, 2, 3)), torch.ones(len(bank.truth.atoms)))
    assert not any(parameter.requires_grad for parameter in bank.parameters())
    again = known_bank("D4", superposition=2.0, seed=1)
    assert torch.equal(bank.mix.weight, again.mix.weight)
    assert not torch.equal(bank.mix.weight, known_bank("D4", superposition=2.0, seed=2).mix.weight)
    control = known_bank("D4", superposition=2.0, seed=1, control=True)
    assert control.truth is None
    assert control.filters.grey.shape == bank.filters.grey.shape
    root = bank.filters.window.clamp_min(1e-12).sqrt()
    noise = (control.filters.grey / root).flatten(1)
    torch.testing.assert_close(noise.square().sum(1), torch.ones(len(noise)), rtol=1e-4, atol=0)
    # The middle of an image and of its mirror image: the bank's filters swap places, the control's see two things.
    x = as_action("D4").transform(torch.rand(1, 3, 61, 61, generator=torch.Generator().manual_seed(0)))[0]
    for net, closed in ((bank, True), (control, False)):
        upright, mirrored = net.filters.responses(x[[0, 4]])[:, :, 15, 15].sort().values
        assert torch.allclose(upright, mirrored, atol=1e-4) == closed


def test_bad_arguments(bank):
    for options in (
        {"kinds": []},
        {"kinds": ["line", "line"]},
        {"kinds": ["star"]},
        {"size": 24},
        {"size": 9},
        {"size": 25.0},
        {"superposition": 0},
        {"superposition": 1e6},
        {"superposition": "1.5"},
        {"superposition": True},
        {"seed": -1},
        {"group": "S4"},
    ):
        with pytest.raises(ArgumentError, match=next(iter(options))):
            known_bank(**options)
    for x in (torch.zeros(1, 1, 65, 65), torch.zeros(3, 65, 65), torch.zeros(1, 3, 65, 65, dtype=torch.uint8), None):
        with pytest.raises(ArgumentError, match="x: expected float RGB"):
            bank(x)
