"""An action that turns colours and moves no position, from a view to a trained crosscoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import groupcc
from groupcc.errors import ArgumentError, DataError
from groupcc.groups import Action, as_action, group, named, register_action
from groupcc.groups.translate import translate
from groupcc.harvesting import OrbitStore
from helpers.nets import TinyNet, smooth_noise, write_photographs


class HueRotation(Action):
    """C_n turning RGB about the grey axis by 2π/n."""

    kind = "hue"

    def __init__(self, spec):
        super().__init__(group(spec))
        angles = 2 * np.pi * np.arange(self.group.order)[:, None, None] / self.group.order
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
        turns = np.eye(3) + np.sin(angles) * cross + (1 - np.cos(angles)) * (cross @ cross)
        self.turns = torch.from_numpy(turns)

    @property
    def exact(self):
        return np.ones(self.group.order, bool)

    def transform(self, images, elements=None, frame=None, *, antialias=True):
        upright = as_action("C1").transform(images, [0], frame, antialias=antialias)[:, 0]
        return torch.einsum("gij,bjhw->bgihw", self.turns[self.chosen(elements)].to(images), upright)


C6 = group("C6")
IMAGES = smooth_noise(2, 65, 1.5) * torch.tensor([1.0, 0.4, 0.1])[:, None, None]
OPTIONS = {"input_size": 57, "dtype": "float32", "progress": False}


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(named, "_ACTIONS", dict(named._ACTIONS))
    register_action(HueRotation)


def test_the_action_is_one():
    hue = HueRotation("C6")
    once = hue.transform(IMAGES, antialias=False)
    assert not hue.moves
    torch.testing.assert_close(once[:, 0], IMAGES)
    for h in range(6):
        twice = hue.transform(once[:, h], antialias=False)
        torch.testing.assert_close(twice, once[:, C6.cayley[:, h].tolist()], rtol=0, atol=1e-5)
    assert (once[:, 1] - IMAGES).abs().max() > 0.1
    assert hue.move([[3.0, -4.0]], [2, 5]).tolist() == [[[3.0, -4.0]]] * 2


def test_the_translation_law():
    hue = HueRotation("C6")
    base = groupcc.harvest(TinyNet(), "body", IMAGES, hue, **OPTIONS)
    plane = groupcc.harvest(TinyNet(), "body", IMAGES, "C6", **OPTIONS)
    assert len(base) > len(plane), "no margin is kept for turning"
    assert (base[:][:, 1] - base[:][:, 0]).abs().max() > 0.01, "the net sees colours, a thousand times the tolerance"
    for h in range(6):
        moved = groupcc.harvest(TinyNet(), "body", hue.transform(IMAGES, [h], antialias=False)[:, 0], hue, **OPTIONS)
        torch.testing.assert_close(moved[:], translate(base[:], C6, h), rtol=0, atol=1e-5)


class WholeImages(HueRotation):
    """An action that shows more than its frame does."""

    kind = "whole"

    def transform(self, images, elements=None, frame=None, *, antialias=True):
        return super().transform(images, elements, None, antialias=antialias)


def test_an_action_must_cut_its_frame():
    with pytest.raises(DataError, match=r"body gives maps of \(\d+, \d+\) pixels.*transform.*'whole'.*frame"):
        groupcc.harvest(TinyNet(), "body", smooth_noise(2, 99, 1.5), WholeImages("C6"), **OPTIONS)


def test_positions_stay_and_colours_turn_as_written_out():
    net, hue = TinyNet(), HueRotation("C3")
    view = groupcc.LayerView.open(net, "body", hue, input_size=57)
    with torch.no_grad():
        maps = view.maps(smooth_noise(1, view.geometry.canvas_size[0], 1.5))
    points = view.points(view.geometry.candidates)
    assert torch.equal(points, torch.tensor(view.geometry.candidates, dtype=torch.float64).expand(3, -1, -1))
    assert maps.shape[:2] == (1, 3)
    store = groupcc.harvest(view, images=IMAGES, dtype="float32", progress=False)
    assert store.index["settings"]["action"] == "hue"
    assert store.geometry.canvas_size == (65, 65)


def test_a_store_keeps_the_action(tmp_path: Path, registered):
    write_photographs(tmp_path / "photographs", 2)
    made = groupcc.harvest(
        TinyNet(), "body", tmp_path / "photographs", HueRotation("C6"), out=tmp_path / "store", positions="random:30",
        input_size=57, progress=False,
    )  # fmt: skip
    store = OrbitStore.open(tmp_path / "store")
    assert torch.equal(store[:], made[:])
    upright, turned = store.patch(3).astype(float), store.patch(3, 2).astype(float)
    expected = np.einsum("ij,yxj->yxi", HueRotation("C6").turns[2].numpy(), upright)
    inside = (expected > 1) & (expected < 254)
    assert np.abs(turned - expected)[inside].max() <= 1.5

    config = groupcc.CrosscoderConfig(group="C6", d_in=store.d_in, n_latents=6, k=2, tied=True, encoder="orbit")
    settings = groupcc.TrainConfig(steps=5, batch_size=16, progress=False)
    crosscoder = groupcc.train(groupcc.GroupCrosscoder(config), store, settings).crosscoder
    assert len(groupcc.analyze(crosscoder, store).table()) == 6
    with pytest.raises(ArgumentError, match=r"out: .* was harvested with action='hue'; now action=None"):
        groupcc.harvest(
            TinyNet(), "body", tmp_path / "photographs", "C6", out=tmp_path / "store", positions="random:30",
            input_size=57, progress=False,
        )  # fmt: skip


def test_without_its_registration_a_store_still_trains(tmp_path: Path):
    groupcc.harvest(TinyNet(), "body", IMAGES, HueRotation("C6"), out=tmp_path, positions="random:8", **OPTIONS)
    store = OrbitStore.open(tmp_path)
    assert store[:].shape == (16, 6, 5)
    with pytest.raises(ArgumentError, match=r"action: expected .*: plane; got hue\. Import the module that defines it"):
        store.patch(0)


def test_one_map_says_nothing_where_nothing_moves():
    with pytest.raises(ArgumentError, match='orbit: expected "input" with an action that moves no position'):
        groupcc.harvest(TinyNet(), "body", IMAGES, HueRotation("C6"), orbit="map", **OPTIONS)
