"""Group axioms, irreps and subgroups of C_n and D_n, and tables worked by hand."""

import numpy as np
import pytest

from groupcc.errors import ArgumentError
from groupcc.groups import Group, cyclic, dihedral, group

ORDERS = [1, 2, 3, 4, 5, 6, 8, 12, 32]
GROUPS = [make(n) for make in (cyclic, dihedral) for n in ORDERS]
every_group = pytest.mark.parametrize("G", GROUPS, ids=str)


def test_d3_cayley_table_by_hand():
    # e, r, r2, m, rm, r2m with m r = r2 m.
    expected = [
        [0, 1, 2, 3, 4, 5],
        [1, 2, 0, 4, 5, 3],
        [2, 0, 1, 5, 3, 4],
        [3, 5, 4, 0, 2, 1],
        [4, 3, 5, 1, 0, 2],
        [5, 4, 3, 2, 1, 0],
    ]
    assert dihedral(3).cayley.tolist() == expected


@every_group
def test_axioms(G):
    table = G.cayley
    everything = np.arange(G.order)
    assert np.array_equal(table[0], everything)
    assert np.array_equal(table[:, 0], everything)
    assert np.array_equal(table[everything, G.inverse], np.zeros(G.order))
    assert np.array_equal(table[G.inverse, everything], np.zeros(G.order))
    assert np.array_equal(table[table, :], table[:, table])  # (gh)k = g(hk)


@every_group
def test_matrices_are_a_homomorphism(G):
    products = np.einsum("gij,hjk->ghik", G.matrices, G.matrices)
    np.testing.assert_allclose(products, G.matrices[G.cayley], atol=1e-14)


def test_quarter_turn_is_counter_clockwise_as_seen():
    # y points down: a point to the right of the centre goes up.
    assert (cyclic(4).matrices[1] @ [1, 0]).tolist() == [0, -1]
    assert (dihedral(4).matrices[4] @ [1, 2]).tolist() == [-1, 2]
    # Mirrored first, then turned.
    assert (dihedral(4).matrices[5] @ [1, 0]).tolist() == [0, 1]


@every_group
def test_axes_are_fixed_by_their_mirror(G):
    for g in np.flatnonzero(G.reflections):
        angle = np.deg2rad(G.axes[g])
        direction = np.array([np.cos(angle), -np.sin(angle)])
        np.testing.assert_allclose(G.matrices[g] @ direction, direction, atol=1e-12)


@every_group
def test_irreps(G):
    irreps = G.irreps()
    assert sum(i.dim**2 / i.endomorphism_dim for i in irreps) == G.order
    for irrep in irreps:
        m = irrep.matrices
        assert m.shape == (G.order, irrep.dim, irrep.dim)
        np.testing.assert_allclose(np.einsum("gij,hjk->ghik", m, m), m[G.cayley], atol=1e-12)
        np.testing.assert_allclose(
            np.einsum("gij,gkj->gik", m, m), np.broadcast_to(np.eye(irrep.dim), m.shape), atol=1e-12
        )
    characters = np.stack([i.character for i in irreps])
    gram = characters @ characters.T / G.order
    np.testing.assert_allclose(gram, np.diag([i.endomorphism_dim for i in irreps]), atol=1e-12)


def test_d32_irreps_as_the_design_counts_them():
    dims = [i.dim for i in dihedral(32).irreps()]
    assert (dims.count(1), dims.count(2)) == (4, 15)


@every_group
def test_parseval(G):
    x = np.random.default_rng(0).normal(size=G.order)
    power = sum(i.power_weight(G.order) * np.sum(np.einsum("g,gij->ij", x, i.matrices) ** 2) for i in G.irreps())
    assert power == pytest.approx(np.sum(x**2), rel=1e-12)


@every_group
def test_subgroups_are_closed_distinct_and_counted(G):
    subgroups = G.subgroups()
    divisors = [d for d in range(1, G.n + 1) if G.n % d == 0]
    assert len(subgroups) == len(divisors) + (sum(divisors) if G.kind == "dihedral" else 0)
    assert len({s.label for s in subgroups}) == len({s.mask.tobytes() for s in subgroups}) == len(subgroups)
    for s in subgroups:
        assert s.order == s.mask.sum()
        assert np.array_equal(G.closure(s.mask), s.mask)
        assert G.subgroup_of(s.mask) is s
        assert G.subgroup_named(s.label) is s


def test_every_subgroup_of_small_groups_by_brute_force():
    for G in (cyclic(6), dihedral(3), dihedral(4)):
        closed = set()
        for a in range(G.order):
            for b in range(G.order):
                mask = np.zeros(G.order, bool)
                mask[[a, b]] = True
                closed.add(G.closure(mask).tobytes())
        # Subgroups of C_n and D_n need two generators at most.
        assert closed == {s.mask.tobytes() for s in G.subgroups()}


@every_group
def test_conjugacy_classes(G):
    def conjugate(mask, g):
        out = np.zeros_like(mask)
        out[G.cayley[G.cayley[g, np.flatnonzero(mask)], G.inverse[g]]] = True
        return out.tobytes()

    for a in G.subgroups():
        reached = {conjugate(a.mask, g) for g in range(G.order)}
        for b in G.subgroups():
            assert (b.mask.tobytes() in reached) == (a.conjugacy_class == b.conjugacy_class), (a.label, b.label)


def test_mirrors_of_d4_are_told_apart_by_axis():
    labels = [s.label for s in dihedral(4).subgroups() if s.name == "D1"]
    assert labels == ["D1@0°", "D1@45°", "D1@90°", "D1@135°"]
    # Element 4 mirrors x → −x: its axis is vertical.
    assert dihedral(4).subgroup_named("D1@90°").elements == [0, 4]


def test_right_translation_composes_as_r_gh():
    G = dihedral(5)
    d = np.random.default_rng(1).normal(size=(G.order, 3))
    for g in range(G.order):
        for h in range(G.order):
            twice = d[G.right_translation[h]][G.right_translation[g]]
            assert np.array_equal(twice, d[G.right_translation[G.cayley[g, h]]])


def test_parsing_and_equality():
    assert group("D32") == dihedral(32)
    assert len(group("d32")) == 64
    assert group(cyclic(3)) == cyclic(3) != dihedral(3)
    assert len({group("D4"), dihedral(4)}) == 1
    assert str(group(" C12 ")) == "C12"
    assert isinstance(group("C1"), Group)


@pytest.mark.parametrize("bad", ["D0", "E4", "D", "32", "D-1", "", None, 4])
def test_bad_group_names(bad):
    with pytest.raises(ArgumentError, match=r"group: expected .* got .*D32"):
        group(bad)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True, "4"])
def test_bad_orders(bad):
    with pytest.raises(ArgumentError, match="n: expected"):
        dihedral(bad)


def test_bad_masks_and_labels():
    G = dihedral(4)
    with pytest.raises(ArgumentError, match="not closed"):
        G.subgroup_of(np.arange(8) < 3)
    with pytest.raises(ArgumentError, match="bool array of shape"):
        G.closure(np.zeros(8))
    with pytest.raises(ArgumentError, match="D1@45°"):
        G.subgroup_named("D1")


def test_tables_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        dihedral(4).cayley[0, 0] = 1
