"""The Fourier transform on the group turns correlations into one product for each irrep."""

import numpy as np
import pytest

import groupcc
from groupcc.groups.transform import fourier_blocks

GROUPS = ["C1", "C2", "C3", "C4", "C5", "C12", "C32", "D1", "D2", "D3", "D4", "D7", "D8", "D12", "D32"]


@pytest.mark.parametrize("name", GROUPS)
def test_products_of_coefficients_are_correlations(name):
    group, rng = groupcc.group(name), np.random.default_rng(0)
    w, a = rng.normal(size=(2, group.order, 3))
    expected = [(w[group.cayley[:, h]] * a).sum() for h in range(group.order)]
    z = np.zeros(group.order)
    for block in fourier_blocks(group):
        a_hat = np.einsum("bimg,gd->bimd", block.left, a)
        w_hat = np.einsum("bmjg,gd->bmjd", block.right, w)
        z += np.einsum("bimd,bmjd,bijh->h", a_hat, w_hat, block.inverse)
    np.testing.assert_allclose(z, expected, atol=1e-12)


@pytest.mark.parametrize(("name", "multiplications"), [("D32", 124), ("D3", 10), ("C32", 62), ("D4", 12), ("C2", 2)])
def test_multiplications(name, multiplications):
    blocks = fourier_blocks(groupcc.group(name))
    assert sum(len(b.left) * b.left.shape[1] ** 2 * b.right.shape[2] for b in blocks) == multiplications


def test_coefficients_are_as_many_as_elements():
    for name in GROUPS:
        group = groupcc.group(name)
        assert sum(np.prod(block.inverse.shape[:3]) for block in fourier_blocks(group)) == group.order
