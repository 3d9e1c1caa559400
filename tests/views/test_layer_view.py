"""LayerView: what it reads is what a harvest stores, whole or in part; it stands in for model and layer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import groupcc
from groupcc.causal.tail import Tail
from groupcc.errors import ArgumentError, DataError
from groupcc.groups import group
from groupcc.views import ImageKind, Lattice, LayerView
from groupcc.views import layout as layouts
from groupcc.views.layers import replaced_maps
from groupcc.views.layout import FeatureMaps, Layout, detect_layout
from groupcc.views.options import PHOTOGRAPHS, VIEW_DEFAULTS
from helpers.nets import TinyNet, noise, smooth_noise, write_photographs

SIDE = 77
IMAGES = smooth_noise(3, SIDE, 1.5)
TENSORS = ImageKind(3, (SIDE, SIDE), ready=True)
STORED = {"dtype": "float32", "progress": False}


def view(spec="D4", **options) -> LayerView:
    return LayerView.open(TinyNet().eval(), "body", spec, **({"images": TENSORS} | options))


# Maps and positions


@pytest.mark.parametrize("orbit", ["input", "map"])
def test_maps_read_at_points_are_the_orbits_that_a_harvest_stores(orbit) -> None:
    seen = view("D6", orbit=orbit)
    store = groupcc.harvest(TinyNet(), "body", IMAGES, "D6", orbit=orbit, **STORED)
    positions = np.array(seen.geometry.candidates)
    with torch.no_grad():
        maps = seen.maps(IMAGES)
    assert maps.shape == (3, 12 if orbit == "input" else 1, 19, 19, 5)
    torch.testing.assert_close(seen.read(maps, seen.points(positions)), store[:], rtol=1e-5, atol=1e-6)
    for batch in (1, 7, 100):
        orbits = seen.orbits(IMAGES, [positions] * 3, forward_batch=batch)
        torch.testing.assert_close(orbits.flatten(0, 1), store[:], rtol=1e-5, atol=1e-6)


def test_maps_of_some_elements_are_those_of_all() -> None:
    """What a process that runs its own elements alone needs."""
    seen = view()
    with torch.no_grad():
        every, some = seen.maps(IMAGES), seen.maps(IMAGES, [6, 1])
    torch.testing.assert_close(some, every[:, [6, 1]], rtol=1e-5, atol=1e-6)
    positions = [seen.geometry.map_pivot, seen.geometry.candidates[0]]
    points = seen.points(positions)
    torch.testing.assert_close(
        seen.read(some, points[[6, 1]]), seen.read(every, points)[:, [6, 1]], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("orbit", ["input", "map"])
def test_a_crosscoder_encodes_a_views_maps_as_it_encodes_their_orbits(orbit) -> None:
    seen = view(orbit=orbit)
    config = groupcc.CrosscoderConfig(group="D4", d_in=5, n_latents=12, k=3, encoder="orbit")
    crosscoder = groupcc.GroupCrosscoder(config, seed=1).eval()
    with torch.no_grad():
        maps, points = seen.maps(IMAGES), seen.points(seen.geometry.candidates)
        encoded = crosscoder.encode_maps(maps, points, seen.interpolation)
        expected = crosscoder.encode(seen.read(maps, points))
    assert torch.equal(encoded.indices, expected.indices)
    torch.testing.assert_close(encoded.acts, expected.acts, rtol=1e-4, atol=1e-5)


def test_inputs_are_turned_then_preprocessed() -> None:
    seen = view(preprocess=((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    inputs = seen.inputs(IMAGES, [0, 3])
    turned = seen.action.transform(IMAGES, [0, 3], seen.geometry.frame).flatten(0, 1)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1)))
    torch.testing.assert_close(inputs, (turned - mean) / std)


def test_a_part_of_the_input_gives_what_the_whole_gives_at_a_position_inside() -> None:
    seen = view()
    x = y = 4 * 5  # five map pixels
    part = replace(seen, geometry=seen.geometry.part((x, y), (41, 41)))
    u, v = seen.geometry.map_pivot
    assert part.geometry.map_pivot == (u - 5, v - 5)
    with torch.no_grad():
        whole = seen.read(seen.maps(IMAGES), seen.points([(u, v)]))
        small = part.maps(IMAGES)
        assert small.shape[2:4] == (10, 10)
        torch.testing.assert_close(
            part.read(small, part.points([part.geometry.map_pivot])), whole, rtol=1e-4, atol=1e-6
        )


def test_gradients_flow_where_they_are_enabled() -> None:
    images = IMAGES[:1].clone().requires_grad_()
    seen = view()
    seen.maps(images, [1]).sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().max()) > 0
    with torch.no_grad():
        assert not seen.maps(images, [1]).requires_grad


def test_the_model_runs_in_eval_mode_and_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.BatchNorm2d(5), nn.Dropout(0.5)).train()
    net[1].running_var.fill_(4.0)
    seen = LayerView.open(net, "2", "C1", images=TENSORS)
    images = IMAGES[:2]
    with torch.no_grad():
        maps = seen.maps(images)[:, 0]
        expected = net[0](seen.inputs(images)) / (4.0 + net[1].eps) ** 0.5
    torch.testing.assert_close(maps, expected.permute(0, 2, 3, 1))
    assert net.training
    assert net[1].training


def test_nan_is_an_error_that_names_image_and_element() -> None:
    seen, images = view(), IMAGES.clone()
    images[2, :, 40, 30] = torch.inf
    with torch.no_grad():
        with pytest.raises(DataError, match=r"body gives NaN or infinity for image 2 under element 180°.*float32"):
            seen.maps(images, [2, 5])
        with pytest.raises(DataError, match="for image 'c' under element m·90°"):
            seen.maps(images, [5], names=["a", "b", "c"])


# Opening


def test_photographs_get_a_canvas_and_other_images_their_own(tmp_path) -> None:
    seen = view(images=PHOTOGRAPHS, input_size=57)
    assert seen.geometry.canvas_size[0] > 57 * 2**0.5
    other = seen.suited(ImageKind(3, (65, 65)))
    assert other.geometry.canvas_size == (65, 65)
    assert other.geometry.lattice == seen.geometry.lattice
    assert seen.suited(PHOTOGRAPHS) is seen
    with pytest.raises(ArgumentError, match="images: expected 3 channels, which the view was made for; got 1"):
        seen.suited(ImageKind(1, (65, 65)))


def test_a_ready_view_stands_in_for_model_and_layer(tmp_path) -> None:
    write_photographs(tmp_path, 3)
    seen = view("D4", images=PHOTOGRAPHS, input_size=57, margin=4.0)
    for images in (tmp_path, IMAGES):
        # A view keeps its own preprocessing; the named default is none for a module.
        by_view = groupcc.harvest(seen, images=images, positions="random:9", **STORED)
        by_name = groupcc.harvest(
            TinyNet(), "body", images, "D4", positions="random:9", input_size=57, margin=4.0, **STORED
        )
        assert torch.equal(by_view[:], by_name[:])
        assert by_view.index == by_name.index


def test_a_ready_view_is_checked_causally_as_model_and_layer_are() -> None:
    config = groupcc.CrosscoderConfig(group="D4", d_in=5, n_latents=8, k=3, encoder="identity")
    crosscoder = groupcc.GroupCrosscoder(config, seed=1).eval()
    atlas = groupcc.analyze(crosscoder)
    options = {"n_families": 2, "elements": [1, 6], "progress": False}
    by_name = groupcc.causal_check(TinyNet(), "body", crosscoder, IMAGES, atlas, margin=4.0, **options)
    by_view = groupcc.causal_check(view(margin=4.0), None, crosscoder, IMAGES, atlas, **options)
    assert by_view == by_name
    with pytest.raises(ArgumentError, match=r"model: expected a view of input orbits under D4.*got .*under C4"):
        groupcc.causal_check(view("C4"), None, crosscoder, IMAGES, atlas, **options)
    with pytest.raises(ArgumentError, match="crosscoder: expected d_in=8, the channels of 'first'"):
        groupcc.causal_check(TinyNet(), "first", crosscoder, IMAGES, atlas, margin=4.0, **options)


@pytest.mark.parametrize(
    ("name", "value"), [("layer", "body"), ("group", "D4"), ("orbit", "map"), ("margin", 4.0), ("device", "cpu")]
)
def test_nothing_stands_beside_a_view_that_it_has_itself(name, value) -> None:
    with pytest.raises(ArgumentError, match=f"{name}: expected nothing beside a LayerView"):
        groupcc.harvest(view(), images=IMAGES, progress=False, **{name: value})


def test_a_model_needs_a_layer() -> None:
    with pytest.raises(ArgumentError, match="layer: expected the dotted name"):
        groupcc.harvest(TinyNet(), images=IMAGES, progress=False)


def test_every_option_may_be_left_out() -> None:
    assert view().record() == view(**VIEW_DEFAULTS).record()


def test_the_record_holds_what_decides_the_numbers() -> None:
    record = view("C5", margin=6.5, preprocess=((0.5,) * 3, (0.25,) * 3), interpolation="bilinear").record()
    assert record["group"] == "C5"
    assert (record["orbit"], record["interpolation"], record["margin"]) == ("input", "bilinear", 6.5)
    assert record["preprocess"] == {"mean": [0.5] * 3, "std": [0.25] * 3}
    assert record["lattice"] == {"stride": 4, "offset": 1, "receptive_field": 13, "map_size": (19, 19)}
    assert not {"action", "layout"} & set(record), "stores from before have neither"


def test_the_example_in_its_docstring_runs() -> None:
    lines = (LayerView.__doc__ or "").splitlines()
    code = [line[8:] for line in lines if line.startswith("        ")]
    assert len(code) == 4
    made: dict = {"torch": torch, "groupcc": groupcc}
    exec("\n".join(code), made)
    assert made["maps"].shape == (1, 8, 33, 33, 80)
    assert made["acts"].shape == (len(made["view"].geometry.candidates), 8, 80)


# Layouts


class Tokens(Layout):
    """A class token and a square of patches, [B, 1 + n², D]."""

    name = "BTC"

    def fits(self, output: Tensor, batch: int) -> bool:
        return (
            output.dim() == 3
            and len(output) == batch
            and round((output.shape[1] - 1) ** 0.5) ** 2 + 1 == output.shape[1]
        )

    def to_maps(self, output: Tensor) -> Tensor:
        side = round((output.shape[1] - 1) ** 0.5)
        return output[:, 1:].unflatten(1, (side, side))

    def from_maps(self, maps_BHWD: Tensor, output: Tensor) -> Tensor:
        patches = maps_BHWD.flatten(1, 2).to(output)
        return torch.cat([output[:, :1].expand(len(patches), -1, -1), patches], 1)


class Patches(nn.Module):
    """Patches of 8 pixels as tokens, a class token before them; then a head that reads both."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.embed = nn.Conv2d(3, 6, 8, stride=8)
        self.embed.weight.data = torch.randn(6, 3, 8, 8, generator=generator) / 14
        self.tokens = nn.Identity()
        self.head = nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.embed(x).flatten(2).transpose(1, 2)
        tokens = self.tokens(torch.cat([patches.mean(1, keepdim=True), patches], 1))
        return self.head(torch.cat([tokens[:, 0], tokens[:, 1:].square().mean(1)], 1))


def test_a_new_layout_is_one_class_and_one_entry() -> None:
    net, lattice = Patches().eval(), Lattice(8, 3.5, 8)
    images = smooth_noise(2, 72, 1.5)
    options = {"lattice": lattice, "input_size": 72, **STORED}
    with pytest.raises(ArgumentError, match="such as a transformer's tokens"):
        groupcc.harvest(net, "tokens", images, "D4", **options)
    layouts.LAYOUTS.append(Tokens())
    try:
        store = groupcc.harvest(net, "tokens", images, "D4", **options)
        plain = groupcc.harvest(net, "embed", images, "D4", **options)
        assert torch.equal(store[:], plain[:])
        assert store.index["settings"]["layout"] == "BTC"
        assert "layout" not in plain.index["settings"]
        seen = LayerView.open(net, "tokens", "D4", lattice=lattice, input_size=72)
    finally:
        layouts.LAYOUTS.pop()
    # Maps written back leave the class token alone, which the causal check needs.
    inputs = noise(1, 72)
    with torch.no_grad():
        maps = seen.run(inputs)
        same, none = (Tail(seen, [])(inputs, changed)["output"] for changed in (maps, torch.zeros_like(maps)))
        expected = net.head(torch.cat([net.embed(inputs).mean((2, 3)), torch.zeros(1, 6)], 1))
    torch.testing.assert_close(same, net(inputs).detach().double())
    torch.testing.assert_close(none, expected.detach().double())


def test_feature_maps_there_and_back() -> None:
    output = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    layout = detect_layout(output, "any", 2)
    assert isinstance(layout, FeatureMaps)
    maps = layout.to_maps(output)
    assert maps.shape == (2, 3, 4, 5)
    assert torch.equal(layout.from_maps(maps, output), output)
    assert layout.from_maps(maps.float(), output.half()).dtype == torch.float16


def test_replaced_maps_are_put_back_whatever_happens() -> None:
    net = TinyNet().eval()
    maps = torch.zeros(1, 19, 19, 5)
    with torch.no_grad():
        with replaced_maps(net, "body", FeatureMaps(), maps):
            assert torch.equal(net(IMAGES[:1])[0], net.head.bias)
        with pytest.raises(ZeroDivisionError), replaced_maps(net, "body", FeatureMaps(), maps):
            raise ZeroDivisionError
    assert not net.body._forward_hooks


def test_a_group_object_and_a_name_open_the_same_view() -> None:
    assert view(group("D4")).record() == view("D4").record()
