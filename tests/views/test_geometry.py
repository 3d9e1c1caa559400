"""Every block is read where its transform puts the position: pivots, safe disc, planted patterns, translation law."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from groupcc.errors import ArgumentError
from groupcc.groups import as_action, group
from groupcc.groups.images import Frame
from groupcc.harvesting import OrbitStore, harvest
from groupcc.views import Lattice
from groupcc.views.geometry import parse_positions, plan_geometry, sampling_points
from helpers.nets import Filter, TinyNet, gaussian, noise, smooth_noise

GOOGLENET_3B = Lattice(8, 6, 59, (28, 28))


def quiet(*args: object, **options: object) -> OrbitStore:
    return harvest(*args, progress=False, **{"dtype": "float32", **options})  # type: ignore[arg-type]


# The plan


def test_the_pivot_lies_under_a_map_pixel_and_the_canvas_matches_it() -> None:
    geometry = plan_geometry(GOOGLENET_3B, (224, 224), canvas_size=None)
    assert geometry.map_pivot == (13, 13)
    assert geometry.input_pivot == (110, 110)
    side = geometry.canvas_size[0]
    assert side % 2 == 1
    assert geometry.canvas_pivot == ((side - 1) / 2, (side - 1) / 2)
    # 110 − 29 − 1.5·8 pixels are left of the input's edge.
    assert geometry.radius == pytest.approx(69 / 8)
    assert len(geometry.candidates) == sum(x * x + y * y <= (69 / 8) ** 2 for x in range(-9, 10) for y in range(-9, 10))


def test_a_pivot_between_pixels_gets_an_even_canvas() -> None:
    geometry = plan_geometry(Lattice(2, 0.5, 4, (40, 40)), (80, 80), canvas_size=None)
    assert geometry.canvas_size[0] % 2 == 0
    assert geometry.input_pivot[0] % 1 == 0.5
    assert geometry.canvas_pivot[0] % 1 == 0.5


@pytest.mark.parametrize("lattice", [GOOGLENET_3B, Lattice(4, 1, 13, (56, 56)), Lattice(2, 0.5, 6, (112, 112))])
@pytest.mark.parametrize("canvas", [None, (224, 224), (300, 260)])
def test_no_fill_and_no_border_enters(lattice: Lattice, canvas: tuple[int, int] | None) -> None:
    """Ones inside the picture, zeros outside: whatever a used position can see is one, under every element."""
    action = as_action("D16")
    geometry = plan_geometry(lattice, (224, 224), canvas_size=canvas)
    picture = action.transform(torch.ones(1, 1, *geometry.canvas_size), frame=geometry.frame)[0, :, 0]
    if canvas is None:
        assert picture.min() > 1 - 1e-5
    points = sampling_points(geometry, action, geometry.candidates).numpy()
    half = (lattice.receptive_field - 1) / 2
    for g in range(action.group.order):
        taps = np.concatenate([np.floor(points[g] + 0.5) - 1, np.floor(points[g] + 0.5) + 1])
        assert taps.min() >= 0
        assert taps.max() < lattice.map_size[0]
        centres = lattice.stride * taps + lattice.offset
        first, last = (centres - half).min(0), (centres + half).max(0)
        assert first.min() >= 0
        assert last.max() <= 223
        for x, y in centres[np.argsort(-np.abs(centres - centres.mean(0)).max(1))[:20]]:
            rows = slice(int(y - half), int(y + half) + 1)
            assert picture[g, rows, int(x - half) : int(x + half) + 1].min() > 1 - 1e-5


def test_more_positions_would_see_the_border() -> None:
    """The disc isn't needlessly small: a stride further out, some receptive field leaves the input."""
    geometry = plan_geometry(GOOGLENET_3B, (224, 224), canvas_size=None)
    farthest = max(math.hypot(x - 13, y - 13) for x, y in geometry.candidates)
    assert 110 - 8 * (farthest + 1) - 12 - 29 < 0


def test_no_safe_position_says_what_to_do_and_that_works() -> None:
    lattice = Lattice(16, 14, 235, (14, 14))
    with pytest.raises(ArgumentError, match=r"receptive field 235.*input_size=\(352, 352\), or margin"):
        plan_geometry(lattice, (224, 224), canvas_size=None)
    assert plan_geometry(Lattice(16, 14, 235, (22, 22)), (352, 352), canvas_size=None).candidates
    assert plan_geometry(lattice, (224, 224), canvas_size=None, margin=60).candidates
    with pytest.raises(ArgumentError, match=r"images of at least (\d+)") as caught:
        plan_geometry(Lattice(4, 1, 61, (16, 16)), (64, 64), canvas_size=(64, 64))
    side = int(str(caught.value).split("at least ")[1].split(" ")[0])
    assert plan_geometry(Lattice(4, 1, 61, (side // 4, side // 4)), (side, side), canvas_size=(side, side)).candidates


def test_bad_margin_positions_and_interpolation() -> None:
    with pytest.raises(ArgumentError, match="margin"):
        plan_geometry(GOOGLENET_3B, (224, 224), canvas_size=None, margin=-1)
    with pytest.raises(ArgumentError, match="interpolation"):
        plan_geometry(GOOGLENET_3B, (224, 224), canvas_size=None, interpolation="nearest")
    for rule in ("some", "random:0", "random:"):
        with pytest.raises(ArgumentError, match="positions"):
            parse_positions(rule)
    with pytest.raises(ArgumentError, match=r"at most \d+ positions"):
        quiet(TinyNet(), "body", noise(1, 64), "C4", positions="random:5000")


# What arrives


def blobs(side: int, places: list[tuple[float, float, float]], sigma: float) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side).double(), torch.arange(side).double(), indexing="ij")
    image = sum(a * torch.exp(-((x - bx) ** 2 + (y - by) ** 2) / (2 * sigma**2)) for bx, by, a in places)
    assert isinstance(image, torch.Tensor)
    return image.float().expand(1, 3, side, side).contiguous()


@pytest.mark.parametrize(("stride", "kernel", "padding"), [(3, 5, 1), (5, 3, 0), (2, 4, 1)])
def test_a_planted_pattern_is_found_in_every_block(stride: int, kernel: int, padding: int) -> None:
    """Three unequal blobs off the centre, under D8: every block holds each at its own place, reflections included."""
    taps = torch.zeros(kernel, kernel)
    taps[(kernel - 1) // 2 : kernel // 2 + 1, (kernel - 1) // 2 : kernel // 2 + 1] = 1 / (4 if kernel % 2 == 0 else 1)
    net = Filter(taps, stride=stride, padding=padding)
    side = 40 * stride
    empty = quiet(net, "out", torch.zeros(1, 3, side, side), "D8")
    assert empty.lattice.stride == stride
    assert empty.lattice.offset == (kernel - 1) / 2 - padding
    pivot = np.array(empty.geometry.map_pivot)
    planted = [tuple(pivot + offset) for offset in ((7, -3), (-2, 8), (-9, -4))]
    heights = (1.0, 0.7, 0.4)
    image = blobs(
        side,
        [(*empty.geometry.canvas_xy(p), a) for p, a in zip(planted, heights, strict=True)],
        sigma=1.3 * stride,
    )
    store = quiet(net, "out", image, "D8")
    acts_PG = store[:][..., 0]
    places = [store.positions_of(i) for i in range(len(store))]
    rows = [places.index((int(x), int(y))) for x, y in planted]
    for g in range(store.group.order):
        assert int(acts_PG[:, g].argmax()) == rows[0], store.group.element_names[g]
    expected = torch.tensor(heights)[:, None] * acts_PG[rows[0], 0]
    assert torch.allclose(acts_PG[rows], expected.expand(3, 16), rtol=0.03)
    # Away from the blobs too: the whole map is the same in every block, though the layer read it turned.
    assert (acts_PG - acts_PG[:, :1]).abs().max() < 0.02 * acts_PG.max()


def test_the_activation_map_orbit_reads_one_map_at_turned_places() -> None:
    net = Filter(torch.ones(1, 1), stride=2)
    store = quiet(net, "out", smooth_noise(1, 81, 3.0), "D4", orbit="map")
    upright = {store.positions_of(i): store[i][0, 0] for i in range(len(store))}
    pivot = np.array(store.geometry.map_pivot)
    for i in range(0, len(store), 7):
        offset = np.array(store.positions_of(i)) - pivot
        for g in range(8):
            x, y = pivot + store.group.matrices[g] @ offset
            assert store[i][g, 0] == pytest.approx(float(upright[round(x), round(y)]), abs=1e-6)


def test_a_directional_layer_sees_the_direction_turned_back() -> None:
    """a_g(p) for ∂/∂x is the derivative along g⁻¹x: pins the sense of rotation, and rotation before reflection."""
    axis = torch.arange(-6, 7.0)
    net = Filter(-gaussian(6, 1.5) * -axis[None, :] / 1.5**2, stride=3, padding=6)
    store = quiet(net, "out", smooth_noise(1, 160, 4.0), "D8", input_size=129)
    elements = store.group
    acts_PG = store[:][..., 0].double()
    # x̂ᵀ M_g ∇f for the gradient ∇f(p) that the two blocks e and 90° give.
    quarter = elements.element_names.index("90°")
    towards_x = np.array([elements.matrices[g] @ np.eye(2) for g in range(elements.order)])[:, 0]  # row x̂ᵀ M_g
    basis = np.linalg.inv(towards_x[[0, quarter]])
    gradient_P2 = acts_PG[:, [0, quarter]].numpy() @ basis.T
    predicted = torch.from_numpy(gradient_P2 @ towards_x.T)
    assert ((acts_PG - predicted).norm() / acts_PG.norm()) < 0.03
    turned_wrongly = torch.from_numpy(gradient_P2 @ towards_x[elements.inverse].T)
    assert ((acts_PG - turned_wrongly).norm() / acts_PG.norm()) > 0.5


def turned_rows(store: OrbitStore, h: int) -> list[int]:
    """The example at h·p for every example at p; h in D4."""
    where = {store.positions_of(i): i for i in range(len(store))}
    pivot = np.array(store.geometry.map_pivot)
    offsets = (np.array(list(where)) - pivot) @ store.group.matrices[h].T + pivot
    return [where[int(x), int(y)] for x, y in np.rint(offsets)]


def test_translation_law_is_exact_on_d4() -> None:
    """The orbit of T_h x at h·p is a_{gh}(p); on a net without symmetry, under D8, for all h in D4."""
    elements = group("D8")
    image = noise(1, 111, seed=3)
    base = quiet(TinyNet(), "body", image, elements, input_size=77)
    pivot = base.geometry.canvas_pivot
    assert len(base) > 20
    for h in np.flatnonzero(elements.exact):
        turned = as_action(elements).transform(image, [int(h)], Frame(pivot, pivot), antialias=False)[:, 0]
        moved = quiet(TinyNet(), "body", turned, elements, input_size=77)[:][turned_rows(base, h)]
        right, left = (base[:][:, list(table[h])] for table in (elements.right_translation, elements.cayley))
        assert torch.allclose(moved, right, atol=2e-5), elements.element_names[h]
        if elements.reflections[h]:
            assert not torch.allclose(moved, left, atol=1e-2)


def test_translation_law_of_the_activation_map_orbit() -> None:
    """One map A: a_g(h·p) = A(gh·p) = a_{gh}(p) within one image."""
    elements = group("D8")
    store = quiet(TinyNet(), "body", noise(1, 111, seed=3), elements, input_size=77, orbit="map")
    for h in np.flatnonzero(elements.exact):
        right = store[:][:, list(elements.right_translation[h])]
        assert torch.allclose(store[turned_rows(store, h)], right, atol=2e-5), elements.element_names[h]


def test_translation_law_is_close_for_every_element() -> None:
    elements = group("D8")
    image = smooth_noise(1, 141, 1.5, seed=5)
    options = {"input_size": 77, "positions": "centre"}
    base = quiet(TinyNet(16), "body", image, elements, **options)[0]
    pivot = (70.0, 70.0)
    for h in range(elements.order):
        turned = as_action(elements).transform(image, [h], Frame(pivot, pivot), antialias=False)[:, 0]
        moved = quiet(TinyNet(16), "body", turned, elements, **options)[0]

        def error(blocks: torch.Tensor, moved: torch.Tensor = moved) -> float:
            centred = blocks - base.mean(0)
            return float((moved - blocks).norm() / centred.norm())

        assert error(base[list(elements.right_translation[h])]) < 0.03, elements.element_names[h]
        if elements.reflections[h]:
            assert error(base[list(elements.cayley[h])]) > 0.3


# The spurious 90° structure of resampling

BOUND = 0.03
"""Mean block norm of the exact elements against the others, less 1, on white noise, for a layer that is isotropic
itself: a difference of Gaussians of σ = ¾ and 1½ strides. Measured 0.006 to 0.023; bilinear 0.06 to 0.23."""


def spurious(interpolation: str, rectify: str | None) -> float:
    net = Filter(gaussian(11, 1.5) - gaussian(11, 3.0), stride=2, padding=11, rectify=rectify, separate=True)
    options = {"input_size": 97, "positions": "random:400", "interpolation": interpolation}
    store = quiet(net, "out", noise(3, 121, seed=1), "D16", **options)
    norms_G = store[:].norm(dim=2).mean(0)
    exact = torch.from_numpy(store.group.exact.copy())
    return abs(float(norms_G[exact].mean() / norms_G[~exact].mean()) - 1)


@pytest.mark.parametrize("rectify", [None, "magnitude", "both signs"])
def test_spurious_90_degree_structure_is_bounded(rectify: str | None) -> None:
    measured = spurious("bspline", rectify)
    assert measured < BOUND
    assert spurious("bilinear", rectify) > max(BOUND, 4 * measured)


def test_spurious_structure_of_the_image_transform_alone() -> None:
    """Stride 1, so the map adds nothing: what is left comes from turning the image."""
    net = Filter(gaussian(4, 1.0), padding=4)
    store = quiet(net, "out", noise(2, 121, seed=2), "D16", input_size=65, positions="random:400")
    norms_G = store[:].norm(dim=2).mean(0)
    assert float(norms_G.max() / norms_G.min()) - 1 < 0.002
