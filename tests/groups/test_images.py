"""The action on images: exact on D4, bounded elsewhere, no 90° pattern left by interpolation."""

import numpy as np
import pytest
import torch

from groupcc.errors import ArgumentError
from groupcc.groups import as_action, dihedral, group
from groupcc.groups.images import Frame


def smooth_images(size, seed=0):
    """Band-limited pictures that fade out inside the inscribed disc."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(2, 3, 9, 9, generator=generator, dtype=torch.float64)
    picture = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    axis = torch.linspace(-1, 1, size, dtype=torch.float64)
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    return picture * torch.cos(radius.clamp(max=1) * torch.pi / 2) ** 2


def test_quarter_turn_by_hand():
    image = torch.tensor([[1.0, 2], [3, 4]])[None]
    turned = group("D4").orbit(image, antialias=False)
    assert turned.shape == (8, 1, 2, 2)
    # Counter-clockwise as seen: the right column becomes the top row.
    assert turned[1, 0].tolist() == [[2, 4], [1, 3]]
    assert turned[4, 0].tolist() == [[2, 1], [4, 3]]
    # Mirrored first, then turned.
    assert turned[5, 0].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize("size", [7, 8])
def test_d4_is_rot90_and_flip_exactly(size):
    images = torch.rand(2, 3, size, size)
    orbit = dihedral(4).orbit(images, antialias=False)
    for r in range(4):
        assert torch.equal(orbit[:, r], images.rot90(r, (2, 3)))
        assert torch.equal(orbit[:, 4 + r], images.flip(3).rot90(r, (2, 3)))


@pytest.mark.parametrize("size", [9, 10])
def test_homomorphism_is_exact_on_d4(size):
    G = dihedral(4)
    images = torch.rand(1, 2, size, size)
    once = G.orbit(images, antialias=False)
    for h in range(G.order):
        twice = G.orbit(once[:, h], antialias=False)
        assert torch.equal(twice, once[:, G.cayley[:, h].tolist()])


@pytest.mark.parametrize("name", ["D8", "D12", "D3"])
def test_homomorphism_is_bounded_elsewhere(name):
    G = group(name)
    images = smooth_images(65)
    once = G.orbit(images, antialias=False)
    scale = images.abs().max()
    for h in range(G.order):
        twice = G.orbit(once[:, h], antialias=False)
        assert (twice - once[:, G.cayley[:, h].tolist()]).abs().max() < 0.01 * scale


def test_low_pass_leaves_d4_homomorphism_exact():
    G = dihedral(4)
    images = torch.rand(1, 1, 12, 12, dtype=torch.float64)
    smoothed = as_action(G).transform(images, [0])[:, 0]
    assert torch.equal(G.orbit(images), G.orbit(smoothed, antialias=False))


def test_pivot_and_crop():
    # The pixel at the centre comes to lie at out_centre, whatever the element and the crop.
    images = torch.zeros(1, 1, 31, 31)
    images[0, 0, 12, 17] = 1
    frame = Frame(centre=(17, 12), out_centre=(6, 4), size=(9, 11))
    out = as_action("D8").transform(images, frame=frame, antialias=False)
    assert out.shape == (1, 16, 1, 9, 11)
    assert (out[0, :, 0, 4, 6] - 1).abs().max() < 1e-5
    # One to the right of the centre goes one up under a quarter turn.
    images = torch.zeros(1, 1, 31, 31)
    images[0, 0, 12, 18] = 1
    out = as_action("D8").transform(images, frame=frame, antialias=False)
    assert out[0, 2, 0, 3, 6] == 1


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("centre", [(20, 17), (1, 28), (-9.0, 4.5), (60.0, 60.0)])
def test_a_window_of_the_source_gives_what_the_whole_gives(centre, antialias):
    """A small output reads only part of the source; embedding it in a large one reads all of it."""
    images = torch.rand(1, 2, 30, 33, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    action = as_action("D8")
    small = action.transform(images, frame=Frame(centre, (3, 3), (7, 7)), antialias=antialias)
    large = action.transform(images, frame=Frame(centre, (70, 70), (141, 141)), antialias=antialias)
    torch.testing.assert_close(small, large[..., 67:74, 67:74], rtol=0, atol=1e-12)


def test_every_element_is_low_passed_alike():
    """Energy at fine scales, exact elements against the others: the 90° pattern that interpolation leaves."""

    def excess(antialias):
        G = dihedral(16)
        texture = torch.rand(1, 1, 160, 160, generator=torch.Generator().manual_seed(3))
        out = as_action(G).transform(texture, frame=Frame(size=(91, 91)), antialias=antialias)[0, :, 0]
        laplacian = out[:, 1:-1, 2:] + out[:, 1:-1, :-2] + out[:, 2:, 1:-1] + out[:, :-2, 1:-1] - 4 * out[:, 1:-1, 1:-1]
        energy = laplacian.square().mean((1, 2)).sqrt()
        exact = torch.from_numpy(np.array(G.exact))
        return float(energy[exact].mean() / energy[~exact].mean() - 1)

    # White noise is the worst case: photographs read 0.03 to 0.06 here, and 0.01 for gradients.
    assert abs(excess(antialias=True)) < 0.15
    assert abs(excess(antialias=False)) > 0.2


def test_gradient_flows_to_images():
    images = torch.rand(1, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(as_action("D3").transform, (images,))


def test_half_precision_is_computed_in_fp32():
    images = torch.rand(1, 3, 16, 16).half()
    out = group("D8").orbit(images)
    assert out.dtype == torch.float16
    assert torch.equal(out, group("D8").orbit(images.float()).half())


def test_bad_input():
    G = group("D4")
    with pytest.raises(ArgumentError, match=r"images: expected .*uint8"):
        G.orbit(torch.zeros(3, 4, 4, dtype=torch.uint8))
    with pytest.raises(ArgumentError, match="images"):
        G.orbit(torch.zeros(4, 4))
    with pytest.raises(ArgumentError, match="at least one pixel"):
        G.orbit(torch.zeros(3, 0, 4))
    with pytest.raises(ArgumentError, match="elements: expected indices from 0 to 7"):
        as_action(G).transform(torch.zeros(1, 3, 4, 4), [8])
