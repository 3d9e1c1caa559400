"""A group that is no group of the plane: what asks for the algebra alone takes it, and the rest says what it lacks."""

import numpy as np
import pytest
import torch

import groupcc
from groupcc import ops
from groupcc.errors import ArgumentError
from groupcc.groups import as_action
from groupcc.groups.transform import fourier_blocks
from groupcc.groups.translate import translate, translates
from helpers.quaternions import Quaternions, quaternions  # noqa: F401

Q8 = Quaternions()
D = 6


def planted(n=800, shapes=3, seed=0):
    """Orbits with two active atoms each, translates of a few shapes; and the shapes [L, G, D]."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.nn.functional.normalize(torch.randn(shapes, 8 * D, generator=generator), dim=1).view(shapes, 8, D)
    base[0] = (base[0] + translate(base[0], Q8, 4)) / 2**0.5  # fixed by −1
    base = base / base.flatten(1).norm(dim=1)[:, None, None]
    chosen = torch.randint(shapes, (n, 2), generator=generator)
    poses = torch.randint(8, (n, 2), generator=generator)
    strength = 1 + torch.rand(n, 2, 1, 1, generator=generator)
    return (strength * translate(base[chosen], Q8, poses)).sum(1), base


def test_axioms():
    table, everything = Q8.cayley, np.arange(8)
    assert np.array_equal(table[0], everything)
    assert np.array_equal(table[table, :], table[:, table])
    assert np.array_equal(table[everything, Q8.inverse], np.zeros(8))
    assert table[1, 2] == 3  # ij = k
    assert table[2, 1] == 7  # ji = −k


def test_irreps_and_the_transform():
    assert sum(i.dim**2 / i.endomorphism_dim for i in Q8.irreps()) == Q8.order == len(Q8) == 8
    for irrep in Q8.irreps():
        products = np.einsum("gij,hjk->ghik", irrep.matrices, irrep.matrices)
        np.testing.assert_array_equal(products, irrep.matrices[Q8.cayley])
    w, a = np.random.default_rng(0).normal(size=(2, 8, 3))
    z = np.zeros(8)
    for block in fourier_blocks(Q8):
        a_hat = np.einsum("bimg,gd->bimd", block.left, a)
        w_hat = np.einsum("bmjg,gd->bmjd", block.right, w)
        z += np.einsum("bimd,bmjd,bijh->h", a_hat, w_hat, block.inverse)
    np.testing.assert_allclose(z, [(w[Q8.cayley[:, h]] * a).sum() for h in range(8)], atol=1e-12)


def test_subgroups():
    assert [s.order for s in Q8.subgroups()] == [1, 2, 4, 4, 4, 8]
    assert Q8.subgroup_named("C4@j").elements == [0, 2, 4, 6]
    assert Q8.subgroup_of(Q8.closure(np.arange(8) == 4)).label == "C2"
    with pytest.raises(ArgumentError, match=r"one subgroup of Q8.*C4@i, C4@j, C4@k"):
        Q8.subgroup_named("C4")


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_correlation_is_with_every_translate(quaternions, backend):  # noqa: F811
    acts, base = planted(20)
    with groupcc.use_backend(backend):
        z = ops.group_correlate(acts, base, quaternions)
    torch.testing.assert_close(z, torch.einsum("ngd,lhgd->nlh", acts, translates(base, Q8)))


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_a_tied_dictionary_learns_its_shapes(quaternions, backend):  # noqa: F811
    acts, base = planted()
    config = groupcc.CrosscoderConfig(group="q8", d_in=D, n_latents=6, k=2, tied=True, encoder="orbit", dead_after=500)
    assert config.group == "Q8"
    settings = groupcc.TrainConfig(
        steps=150, batch_size=128, lr=2e-2, augment=True, init_W_dec="examples", progress=False
    )
    with groupcc.use_backend(backend):
        trained = groupcc.train(groupcc.GroupCrosscoder(config), acts, settings).crosscoder
        assert groupcc.evaluate(trained, acts)["fvu"] < 0.2
    atoms = translates(trained.W_dec.detach(), Q8).flatten(0, 1).flatten(1)
    cosine = base.flatten(1) @ torch.nn.functional.normalize(atoms, dim=1).T
    assert (cosine.amax(1) > 0.9).all()


def test_what_needs_the_plane_says_so(quaternions):  # noqa: F811
    made = groupcc.GroupCrosscoder(groupcc.CrosscoderConfig(group="Q8", d_in=D, n_latents=3, k=2))
    with pytest.raises(ArgumentError, match=r"group: expected C<n> or D<n>.*analysis reads; got Q8"):
        groupcc.analyze(made)
    with pytest.raises(ArgumentError, match="turning images reads; got Q8"):
        as_action("Q8")


def test_a_name_is_forgotten_with_its_registration():
    with pytest.raises(ArgumentError, match='expected "C<n>" or "D<n>" with n >= 1; got Q8'):
        groupcc.group("Q8")
