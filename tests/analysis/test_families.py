"""Families: the neighbour graph, ways to cluster, synchronised poses, coverage, duplicates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from groupcc.analysis import (
    Atlas,
    NeighbourGraph,
    autocorrelation,
    find_families,
    find_neighbours,
    find_stabilizers,
    read_coverage,
    translate,
)
from groupcc.analysis.families.member_poses import consistent
from groupcc.analysis.families.synchronisation import synchronise
from groupcc.cli.commands import analysis_options
from groupcc.cli.parser import build_parser
from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.zoo.planted import planted
from helpers.dictionaries import atlas_of, noisy


@pytest.mark.parametrize("name", ["C1", "C5", "D1", "D4", "D5"])
def test_the_neighbour_graph_is_every_similar_pair(name, monkeypatch):
    G = group(name)
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(9, G.order, 3, generator=generator)
    W = torch.cat([W, 3 * W[:4, torch.tensor(G.right_translation[G.order - 1])] + 0.1, torch.zeros(1, G.order, 3)])
    dead = torch.arange(len(W)) == 2
    unit = torch.nn.functional.normalize(W.flatten(1), dim=1)
    turned = [torch.nn.functional.normalize(translate(W, G, h).flatten(1), dim=1) for h in range(G.order)]
    cosine = torch.stack([unit @ other.T for other in turned], dim=2)
    for most in (1 << 22, G.order * 9):
        monkeypatch.setattr("groupcc.analysis.families.neighbours.MAX_PAIR_NUMBERS", most)
        graph = find_neighbours(W, G, floor=0.3, dead=dead)
        near = cosine.amax(2) >= 0.3
        near.fill_diagonal_(False)
        near[2] = near[:, 2] = False
        i, j = near.nonzero().unbind(1)
        assert len(i) >= 6
        assert graph.rows().tolist() == i.tolist()
        assert graph.neighbours.tolist() == j.tolist()
        np.testing.assert_allclose(graph.similarity, cosine.amax(2)[i, j], atol=1e-5)
        np.testing.assert_allclose(cosine[i, j, graph.poses.astype(int)], cosine.amax(2)[i, j], atol=1e-5)
        among = cosine[:, :, : G.n]
        np.testing.assert_allclose(among[i, j, graph.rotations.astype(int)], among.amax(2)[i, j], atol=1e-5)


@pytest.mark.parametrize("method", ["star", "hdbscan", "threshold"])
@pytest.mark.parametrize("name", ["C6", "D1", "D8"])
def test_every_method_finds_planted_families(name, method):
    truth = planted(name, d_in=24, n_latents=10, seed=5)
    order = torch.randperm(len(truth.atoms), generator=torch.Generator().manual_seed(0))
    W = torch.cat([noisy(truth.atoms, 0.4, 2)[order], torch.randn(5, *truth.atoms.shape[1:])])
    base = torch.cat([truth.atom_base[order], 100 + torch.arange(5)])
    families = find_families(W, truth.group, method=method)
    assert families.method == method
    assert torch.equal(families.labels[:, None] == families.labels[None], base[:, None] == base[None])
    assert families.sizes == sorted(families.sizes, reverse=True)
    for family, reference in enumerate(families.references):
        assert families.labels[reference] == family
        assert families.poses[reference] == families.turns[reference] == 0


def chain() -> tuple[torch.Tensor, list[int]]:
    """Each latent shares half of itself with the next, turned by its own element; the ends have nothing in common."""
    G = group("D7")
    parts = torch.randn(6, 14, 30, generator=torch.Generator().manual_seed(3))
    parts = parts / parts.flatten(1).norm(dim=1).view(-1, 1, 1)
    turns = [3, 9, 12, 5, 10]
    return torch.stack([translate(parts[i] + parts[i + 1], G, h) for i, h in enumerate(turns)]), turns


def test_along_a_chain_poses_come_from_the_neighbours():
    W, turns = chain()
    G = group("D7")
    families = find_families(W, G, threshold=0.4, method="threshold")
    assert families.sizes == [5]
    reference = families.references[0]
    assert float(families.similarity_to_reference.min()) < 0.2  # no pose can be read off these
    expected = [int(G.cayley[h, G.inverse[turns[reference]]]) for h in turns]
    assert families.poses.tolist() == expected
    assert families.cycle_error.isnan().all()


def test_hdbscan_breaks_a_chain_where_it_is_thin():
    # Two tight groups and three stepping stones between them, on a circle.
    angles = torch.tensor([0.0, 1, 2, 3, 4, 30, 52, 74, 100, 101, 102, 103]).deg2rad()
    W = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None]
    assert find_families(W, group("C1"), threshold=0.85, method="threshold").sizes == [12]
    found = find_families(W, group("C1"), threshold=0.85, method="hdbscan").labels
    assert len(set(found[:5].tolist())) == len(set(found[8:].tolist())) == 1
    assert found[0] != found[8]


@pytest.mark.parametrize("method", ["star", "threshold"])
def test_the_best_connected_latent_is_the_reference(method):
    angles = torch.tensor([0.0, 20, 40]).deg2rad()
    W = torch.stack([angles.cos(), angles.sin()], dim=1)[:, None]
    assert find_families(W, group("C1"), threshold=0.9, method=method).references == [1]


def test_a_method_that_is_none():
    with pytest.raises(ArgumentError, match='family_method: expected "star", "hdbscan" or "threshold"; got kmeans'):
        atlas_of(torch.ones(2, 2, 3), "C2", family_method="kmeans")


def test_the_command_line_s_method():
    line = ["analyze", "--crosscoder", "c", "--out", "o"]
    parse = build_parser().parse_args
    assert "family_method" not in analysis_options(parse(line))  # the default leaves finished analyses valid
    assert analysis_options(parse([*line, "--family-method", "hdbscan"]))["family_method"] == "hdbscan"
    with pytest.raises(ArgumentError, match="family_method"):
        analysis_options(parse([*line, "--family-method", "kmeans"]))


def noisy_pairs(name: str, label: str, wrong: float, seed: int):
    """Pairs of one family in random poses, a share of them wrong; each right one up to the stabilizer."""
    G = group(name)
    rng = np.random.default_rng(seed)
    mask = G.subgroup_named(label).mask
    elements = np.flatnonzero(mask)
    L = 24
    true = rng.integers(G.order, size=L)
    true[0] = 0
    i, j = np.triu_indices(L, 1)
    inverse = G.inverse
    # p_i H p_j⁻¹, any of it.
    h = G.cayley[G.cayley[true[i], rng.choice(elements, len(i))], inverse[true[j]]]
    bad = rng.random(len(i)) < wrong
    h[bad] = rng.integers(G.order, size=int(bad.sum()))
    rows, columns = np.concatenate([i, j]), np.concatenate([j, i])
    order = np.lexsort((columns, rows))
    poses = np.concatenate([h, inverse[h]])[order]
    starts = np.concatenate([[0], np.bincount(rows).cumsum()])
    graph = NeighbourGraph(
        starts, columns[order], rng.uniform(0.6, 0.9, L * L)[rows * columns][order], poses, poses, 0.5
    )
    return G, mask, elements, true, graph


class Known:
    def __init__(self, mask):
        self.mask = mask


@pytest.mark.parametrize(
    ("name", "label"), [("D7", "C1"), ("D12", "C1"), ("D12", "C3"), ("D6", "C6"), ("C9", "C3"), ("C1", "C1")]
)
@pytest.mark.parametrize("seed", range(4))
def test_synchronised_poses_outvote_wrong_pairs(name, label, seed):
    G, mask, elements, true, graph = noisy_pairs(name, label, wrong=0.4 if name[0] == "D" else 0.25, seed=seed)
    L = len(true)
    measured = np.random.default_rng(2).integers(G.order, size=L)
    found = synchronise(graph, np.zeros(L, np.int64), np.array([0]), G, [Known(mask)] * L, measured)
    assert all(pose in G.cayley[p, elements] for pose, p in zip(found.poses, true, strict=True))
    # The error is that of the true poses.
    step = np.abs(np.arange(G.n)) * 360 / G.n
    wrong, degrees = [], []
    for i, j, h in zip(graph.rows(), graph.neighbours, graph.poses, strict=True):
        if i < j:
            between = G.cayley[G.inverse[true[i]], G.cayley[h, true[j]]]
            options = G.cayley[between, elements]
            apart = 180.0 if G.reflections[between] else min(min(step[o % G.n], step[-(o % G.n)]) for o in options)
            wrong.append(apart > 360 / G.n * 1.001)
            degrees.append(apart)
    assert found.cycle_error[0] == pytest.approx(np.mean(wrong))
    assert found.cycle_degrees[0] == pytest.approx(np.mean(degrees))


@pytest.mark.parametrize(("name", "label"), [("D7", "C1"), ("D12", "C3"), ("C9", "C1")])
def test_along_a_tree_there_is_one_answer(name, label):
    G, mask, elements, true, graph = noisy_pairs(name, label, wrong=0.0, seed=0)
    L = len(true)
    parent = np.random.default_rng(5).integers(np.maximum(np.arange(L), 1))
    i, j = graph.rows(), graph.neighbours
    tree = graph.subgraph((parent[i] == j) & (i > 0) | (parent[j] == i) & (j > 0))
    assert len(tree.neighbours) == 2 * (L - 1)
    measured = np.random.default_rng(2).integers(G.order, size=L)
    found = synchronise(tree, np.zeros(L, np.int64), np.array([0]), G, [Known(mask)] * L, measured)
    assert all(pose in G.cayley[p, elements] for pose, p in zip(found.poses, true, strict=True))
    assert np.isnan(found.cycle_error[0])


def test_synchronised_poses_of_shapes_with_a_mirror_are_rotations():
    truth = planted("D12", d_in=24, n_latents=1, stabilizers=["D2@45°"], seed=0)
    G = truth.group
    W = noisy(truth.atoms, 0.5, 1)
    stabilizers = find_stabilizers(autocorrelation(truth.atoms, G), G, 0.1)
    families = find_families(W, G, threshold=0.6, stabilizers=stabilizers)
    assert families.sizes == [6]
    assert families.cycle_error.tolist() == families.cycle_degrees.tolist() == [0]
    assert not families.mirrored.any()
    for latent in range(6):
        moved = translate(truth.atoms[families.references[0]], G, int(families.poses[latent]))
        assert torch.equal(moved, truth.atoms[latent])


def test_missing_detectors_are_told():
    truth = planted("D8", d_in=32, n_latents=3, stabilizers=["C1", "D1@90°", "C2"], seed=0)
    G = truth.group
    W = noisy(truth.atoms, 0.2, 0)
    gone = {(0, 3), (0, 4), (0, 8 + 7), (0, 8), (1, 2)}  # (base latent, pose); D1@90° and C2 by their smallest pose
    gone |= {(2, h) for h in range(8, 16)}
    kept = [
        i
        for i, key in enumerate(zip(truth.atom_base.tolist(), truth.atom_pose.tolist(), strict=True))
        if key not in gone
    ]
    atlas = atlas_of(W[kept], "D8")
    names = ["chiral", "mirror", "half turn"]
    of_base = {
        names[truth.atom_base[kept[r]]]: (f, int(truth.atom_pose[kept[r]]))
        for f, r in enumerate(atlas.families.references)
    }
    assert atlas.families.sizes == [12, 7, 4]

    family, p = of_base["chiral"]
    coverage = atlas.coverage(family)
    # Relative to the reference R_p t a missing R_q t is the pose q p⁻¹.
    missing = sorted(int(G.cayley[q, G.inverse[p]]) for b, q in gone if b == 0)
    told = [h for ring, start in zip(coverage.rings, (0, 8), strict=True) for h in start + np.flatnonzero(ring.gaps)]
    assert sorted(told) == missing
    assert (coverage.n_poses, coverage.covered) == (16, 0.75)
    assert [ring.counts.tolist() for ring in coverage.rings] == [
        (~ring.gaps).astype(int).tolist() for ring in coverage.rings
    ]
    assert {ring.largest_gap for ring in coverage.rings} == {90.0}
    assert [round((last - first) % 360) for _, first, last in coverage.gaps] == [45, 45]

    coverage = atlas.coverage(of_base["mirror"][0])
    assert coverage.mirrored is None
    assert (coverage.n_poses, coverage.turned.largest_gap) == (8, 45.0)
    ((mirrored, first, last),) = coverage.gaps
    assert (mirrored, first) == (False, last)
    assert first == (2 - of_base["mirror"][1]) % 8 * 45.0

    coverage = atlas.coverage(of_base["half turn"][0])
    assert coverage.gaps == [(True, 0.0, 135.0)]
    row = atlas.table()[atlas.families.references[of_base["half turn"][0]]]
    assert (row["covered"], row["covered_mirrored"], row["largest_gap_degrees_mirrored"]) == (1.0, 0.0, 180.0)
    assert (row["cycle_error"], row["duplicate_of"]) == (0.0, None)


def test_of_equivalent_poses_one_detector_is_enough():
    G = group("D4")
    covered, half_turn = np.zeros(8, dtype=bool), G.subgroup_named("C2").mask
    covered[[2, 5]] = True  # 180 degrees, as the identity; mirrored and by 90 degrees
    found = read_coverage(covered, np.array([2, 5, 7]), G, half_turn)
    assert [ring.gaps.tolist() for ring in found.rings] == [[False, True], [True, False]]
    assert [ring.counts.tolist() for ring in found.rings] == [[1, 0], [0, 2]]
    assert (found.covered, found.gaps) == (0.5, [(False, 90.0, 90.0), (True, 0.0, 0.0)])


def test_a_detector_covers_the_orientations_that_it_is_similar_at():
    # cos(angle/2)² between neighbours: a smooth shape, of which three poses of sixteen are there.
    G = group("C16")
    phase = 2 * torch.pi * torch.arange(16) / 16
    W = torch.stack([phase.cos(), phase.sin()], dim=1)[None] / 4
    W = torch.cat([translate(W[0], G, h)[None] for h in (0, 3, 7)])
    families = find_families(W, G, threshold=0.7)
    assert families.sizes == [3]
    reference = [0, 3, 7][families.references[0]]
    near = [min(abs((h + reference - q + 8) % 16 - 8) for q in (0, 3, 7)) for h in range(16)]
    assert families.covered[0].tolist() == [22.5 * steps < 45.6 for steps in near]


def test_duplicates_apart_from_rotated_copies():
    truth = planted("D6", d_in=32, n_latents=3, stabilizers=["C1", "C2", "D1"], seed=0)
    n = len(truth.atoms)
    copies = [1, 13, 20]
    assert truth.atom_base[copies].tolist() == [0, 1, 2]
    W = noisy(torch.cat([truth.atoms, truth.atoms[copies]]), 0.1, 0)
    stabilizers = find_stabilizers(autocorrelation(W, truth.group), truth.group, 0.1)
    families = find_families(W, truth.group, stabilizers=stabilizers)
    pairs = {frozenset((i, j)) for i, j in enumerate(families.duplicate_of.tolist()) if j >= 0}
    assert pairs == {frozenset((c, n + k)) for k, c in enumerate(copies)}
    assert len(families) == 3
    # Alike, but not enough.
    apart = find_families(noisy(torch.cat([truth.atoms, truth.atoms[copies]]), 0.4, 0), truth.group)
    assert (apart.duplicate_of == -1).all()


@pytest.mark.parametrize("method", ["star", "hdbscan", "threshold"])
@pytest.mark.parametrize("name", ["C1", "C3", "D1", "D4"])
def test_degenerate_dictionaries(name, method):
    G = group(name)
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(1, G.order, 40, generator=generator)
    for W, sizes in (
        (one, [1]),
        (torch.zeros(3, G.order, 4), []),
        (one.expand(30, -1, -1), [30]),
        (torch.ones(8, G.order, 4), [8]),
        (torch.cat([one, torch.zeros(1, G.order, 40), one]), [2]),
        (torch.eye(3)[:, None].expand(-1, G.order, -1), [1, 1, 1]),
    ):
        atlas = atlas_of(W, name, family_method=method)
        assert atlas.families.sizes == sizes
        assert atlas.families.poses.tolist() == [0] * len(W)
        assert len(atlas.table()) == len(W)
        live = [i for i in range(len(W)) if W[i].any()]
        duplicates = live[1:] if len(sizes) == 1 else []
        assert [i for i, j in enumerate(atlas.families.duplicate_of.tolist()) if j >= 0] == duplicates
        if sizes and max(sizes) > 2:
            assert atlas.families.cycle_error.tolist() == [0.0]


def test_what_was_found_is_saved(tmp_path):
    truth = planted("D4", d_in=24, n_latents=6, seed=3)
    atlas = atlas_of(torch.cat([truth.atoms, truth.atoms[:2]]), "D4", family_method="hdbscan")
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert again.families.method == "hdbscan"
    for name in ("labels", "poses", "covered", "duplicate_of"):
        assert torch.equal(getattr(again.families, name), getattr(atlas.families, name))
    for name in ("cycle_error", "cycle_degrees"):
        torch.testing.assert_close(getattr(again.families, name), getattr(atlas.families, name), equal_nan=True)
    assert again.table() == atlas.table()
    assert [again.coverage(f).gaps for f in range(len(again.families))] == [
        atlas.coverage(f).gaps for f in range(len(atlas.families))
    ]


def test_a_measured_pose_that_the_family_contradicts_gives_way():
    G = group("D8")
    cosine = np.full(16, 0.1)
    cosine[[1, 2, 3, 5, 8 + 2]] = 0.7, 0.71, 0.6, 0.95, 0.9
    half_turn = Known(G.subgroup_named("C2").mask)
    assert consistent(G, cosine, 3, 2, None) == 3  # a step is within what elements resolve
    assert consistent(G, cosine, 5, 2, None) == 1  # as good as 2 but for rounding, and smaller
    assert consistent(G, cosine, 8 + 2, 2, None) == 1  # mirrored is not near
    assert consistent(G, cosine, 8 + 2, 8 + 3, None) == 8 + 2
    assert consistent(G, cosine, 5, 1, half_turn) == 5  # 180 degrees from it
    assert consistent(G, cosine, 3, 1, half_turn) == 5
