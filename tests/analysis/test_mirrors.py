"""Chirality read off the neighbour graph: what a search over all pairs would find, and one graph for all of analyze."""

from __future__ import annotations

import cmath

import numpy as np
import pytest
import torch

from groupcc.analysis import analyze, find_families, find_mirrors, find_neighbours
from groupcc.analysis.families.mirrors import PAIR_UPSAMPLING, mirror_floor
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, Correlations
from groupcc.analysis.symmetry.interpolation import interpolate
from groupcc.analysis.symmetry.symmetries import read_symmetries
from groupcc.groups import group
from groupcc.groups.translate import translation_table
from helpers.angular_shapes import CHIRAL, dictionary, shape

D8 = group("D8")


def chiral_latents(seed: int = 0) -> torch.Tensor:
    """[24, 16, D]: six chiral shapes, each with a copy turned, one mirrored and turned, one of noise, all noisy."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for slot in range(6):
        c = {k: complex(*torch.randn(2, generator=generator).tolist()) for k in (1, 2, 3)}
        turn = 360 * float(torch.rand(1, generator=generator))
        own = shape("D8", c, slot=slot, slots=6)
        found += [own, shape("D8", c, slot=slot, slots=6, turn=turn)]
        found += [shape("D8", c, slot=slot, slots=6, turn=2 * turn, mirrored=True), torch.zeros_like(own)]
    W = torch.stack(found)
    noise = torch.randn(W.shape, generator=generator)
    return W + 0.3 * noise * W.flatten(1).norm(dim=1).amax() / noise.flatten(1).norm(dim=1)[:, None, None]


def mirrors_of(W: torch.Tensor, dead: torch.Tensor, threshold: float, graph=None):
    return find_mirrors(read_symmetries(W, D8, 0.05, never_active=dead), threshold, graph)


@pytest.mark.parametrize("threshold", [0.5, 0.75, 0.9])
def test_partners_are_those_of_a_search_over_all_pairs(threshold):
    W = chiral_latents()
    dead = torch.zeros(24, dtype=torch.bool)
    dead[[2, 7]] = True
    found = mirrors_of(W, dead, threshold)
    unit = (W / W.flatten(1).norm(dim=1)[:, None, None]).double()
    table = translation_table(D8, W.device)
    cosine = torch.einsum("jgd,ihgd->ijh", unit, unit[:, table])
    mirrored = interpolate(cosine[..., 8:], PAIR_UPSAMPLING).amax(2)
    turned = interpolate(cosine[..., :8], PAIR_UPSAMPLING).amax(2)
    counts = (mirrored >= threshold) & (mirrored > turned) & ~dead & (cosine[..., 8:].amax(2) >= 0.5 * threshold)
    best = torch.where(counts, mirrored, -1.0).max(1)
    expected = torch.where((best.values > 0) & (found.codes > 0), best.indices, -1)
    assert int((expected >= 0).sum()) > 2
    assert found.partner.tolist() == expected.tolist()
    # A graph of more latents at a lower floor says the same.
    graph = find_neighbours(W, D8, floor=0.2, dead=dead)
    again = mirrors_of(W, dead, threshold, graph)
    assert again.partner.tolist() == found.partner.tolist()
    torch.testing.assert_close(again.turn, found.turn)
    torch.testing.assert_close(again.similarity, found.similarity)


@pytest.mark.parametrize("most", [1, 1 << 20])
def test_of_equal_partners_the_lower_index_of_those_alive(monkeypatch, most):
    monkeypatch.setattr("groupcc.groups.autocorrelation.MAX_BLOCK_NUMBERS", most)
    W = torch.stack([shape("D8", CHIRAL), *[shape("D8", CHIRAL, mirrored=True, turn=45.0)] * 3])
    dead = torch.zeros(4, dtype=torch.bool)
    assert mirrors_of(W, dead, 0.75).partner.tolist() == [1, 0, 0, 0]
    dead[1] = True
    assert mirrors_of(W, dead, 0.75).partner.tolist() == [2, -1, 0, 0]


def test_a_partner_that_no_element_shows():
    """Its mirror line lies between two elements where a repeat of three elements makes all cosines low: families need
    not know such a pair, chirality must."""
    c = {1: 0.1**0.5 * cmath.exp(0.8j), 2: 0.75**0.5, 3: 1j * 0.15**0.5}
    crosscoder = dictionary("D6", [shape("D6", c), shape("D6", c, mirrored=True, turn=30)])
    W = crosscoder.W_dec.detach()
    (best,) = set(find_neighbours(W, crosscoder.group, floor=0.1).similarity.round(4).tolist())
    assert mirror_floor(0.75) < best < NEIGHBOUR_FLOOR
    atlas = analyze(crosscoder, tolerance=0.05)
    assert atlas.tuning.mirrors.partner.tolist() == [1, 0]
    assert atlas.tuning.mirrors.similarity.tolist() == pytest.approx([0.85, 0.85], abs=0.01)
    assert atlas.families.sizes == [1, 1]


def test_families_of_a_larger_graph_are_the_same():
    W = chiral_latents(1)
    spare = torch.zeros(24, dtype=torch.bool)
    spare[[0, 5, 9]] = True
    graph = find_neighbours(W, D8, floor=0.2)
    for dead in (None, spare):
        own, of_graph = find_families(W, D8, dead=dead), find_families(W, D8, dead=dead, graph=graph)
        assert len(own) < 24
        for name in ("labels", "poses", "duplicate_of", "covered"):
            assert torch.equal(getattr(own, name), getattr(of_graph, name)), name
        assert own.references == of_graph.references
        assert of_graph.neighbours.floor == own.neighbours.floor == NEIGHBOUR_FLOOR
        assert np.array_equal(of_graph.neighbours.neighbours, own.neighbours.neighbours)
        assert len(graph.neighbours) > len(own.neighbours.neighbours)


@pytest.mark.parametrize(("tied", "floor"), [(False, 0.35), (True, 0.5)])
def test_analyze_searches_all_pairs_once(monkeypatch, tied, floor):
    crosscoder = dictionary("D8", list(chiral_latents()[:6]), tied=tied)
    floors, search = [], Correlations.neighbours
    monkeypatch.setattr(Correlations, "neighbours", lambda self, at: (floors.append(at), search(self, at))[1])
    atlas = analyze(crosscoder, tolerance=0.05, family_threshold=0.7)
    assert floors == [pytest.approx(floor)]
    assert int((atlas.tuning.mirrors.codes > 0).sum()) >= 5
