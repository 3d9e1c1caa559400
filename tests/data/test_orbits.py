"""One protocol for orbits: what a user's object must have, what is filled in, and that nobody asks beside it."""

import ast
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import groupcc
from groupcc.data import Orbits, as_orbits, is_orbits
from groupcc.data.orbits import TensorOrbits
from groupcc.errors import ArgumentError
from groupcc.training.baseline import UprightOrbits
from groupcc.training.data import describe_examples
from helpers.training_samples import D, G, Images, data, make, same, settings

ROOT = Path(groupcc.__file__).parent


class Least:
    """No more than must be there."""

    def __init__(self, acts):
        self.acts = acts
        self.image_ids = torch.arange(len(acts)) // 10

    def __len__(self):
        return len(self.acts)

    def take(self, indices):
        return self.acts[indices]


def test_what_a_user_leaves_out_is_filled_in():
    acts = data(40)
    orbits = as_orbits(Least(acts), G, D)
    assert isinstance(orbits, Orbits)
    some = torch.tensor([7, 0, 7])
    assert torch.equal(orbits.take_scaled(some, 0.25), acts[some] * 0.25)
    assert orbits.at_step(3) is orbits
    assert (orbits.image_names, orbits.layer, orbits.positions_of(0)) == (None, None, None)
    assert orbits.place_radius == math.inf
    assert describe_examples(orbits, some) == "examples 7, 0, 7"
    assert as_orbits(orbits, G, D) is orbits


def test_what_a_user_has_is_asked():
    given = Least(data(40))
    given.image_names = [f"photo-{i}.png" for i in range(4)]
    given.take_scaled = lambda indices, factor: given.acts[indices] * factor + 1
    given.positions_of = lambda i: (i, 2)
    given.lattice = SimpleNamespace(receptive_field=24, stride=4)
    given.layer, given.flavour = "mixed3b", "sweet"
    orbits = as_orbits(given, G, D)
    assert torch.equal(orbits.take_scaled(torch.tensor([3]), 2.0), given.acts[3:4] * 2 + 1)
    assert orbits.positions_of(5) == (5, 2)
    assert orbits.place_radius == 3.0
    assert (orbits.layer, orbits.flavour) == ("mixed3b", "sweet")
    assert describe_examples(orbits, torch.tensor([11, 12])) == "examples 11, 12 (images photo-1.png)"


@pytest.mark.parametrize(
    "wrap", [Least, TensorOrbits, Images, lambda acts: acts], ids=["least", "tensor", "images", "bare"]
)
def test_however_they_come_training_sees_the_same(wrap):
    run = settings(steps=6, held_out=0)
    expected = groupcc.train(make(), data(), run).crosscoder
    assert same(groupcc.train(make(), wrap(data()), run).crosscoder, expected)


class Stream(Orbits):
    """A buffer of 32 slots, filled anew for each step; slots 0 to 7 are held out."""

    def __init__(self):
        self.image_ids = torch.arange(32) // 8
        self.filled = None

    def __len__(self):
        return 32

    def of(self, step):
        return torch.randn(32, G, D, generator=torch.Generator().manual_seed(step))

    def take(self, indices):
        return self.of(0)[indices]

    def at_step(self, step):
        self.filled = step
        return TensorOrbits(self.of(step))


def test_each_step_reads_what_the_source_has_at_that_step(monkeypatch):
    seen = []
    forward = groupcc.GroupCrosscoder.forward

    def watched(self, acts, **how):
        if self.training:
            seen.append(acts.clone())
        return forward(self, acts, **how)

    monkeypatch.setattr(groupcc.GroupCrosscoder, "forward", watched)
    stream = Stream()
    groupcc.train(make(), stream, settings(steps=5, batch_size=24, held_out=0.25, normalise=False, init_b_dec="zero"))
    assert stream.filled == 4
    for step, acts in enumerate(seen):
        # One image of the four, eight slots, is held out; a batch is all others, in ascending order.
        sides = [torch.equal(acts, stream.of(step)[stream.image_ids != image]) for image in range(4)]
        assert sum(sides) == 1


def test_a_view_of_orbits_has_names_and_places_of_its_own():
    upright = UprightOrbits(as_orbits(Images(data(40)), G, D))
    assert upright.image_names == [f"photo-{i}.png" for i in range(4)]
    assert torch.equal(upright.take_scaled(torch.tensor([1]), 2.0), 2 * data(40)[1:2, :1])


def test_what_are_orbits():
    acts = data(20)
    assert all(map(is_orbits, (acts, Least(acts), TensorOrbits(acts), acts[:, :, :2])))
    assert not any(map(is_orbits, (acts[0], [1, 2], torch.arange(3), "store", None)))
    for given, shown in ((acts[0], r"shape \(6, 5\)"), (acts.long(), "torch.int64"), ("store", "str"), ([1], "list")):
        with pytest.raises(ArgumentError, match=f"orbits: expected .*got {shown}|orbits: expected .* of {shown}"):
            as_orbits(given, G, D)
    with pytest.raises(ArgumentError, match=r"examples \[G, D\] = \[6, 4\]; got \(6, 5\)"):
        as_orbits(Least(acts), G, 4)
    with pytest.raises(ArgumentError, match="at least one example; got no examples"):
        as_orbits(Least(acts[:0]), G, D)


@pytest.mark.parametrize("package", ["training", "data", "analysis", "harvesting", "cli", "models"])
def test_nobody_asks_orbits_for_what_the_protocol_lacks(package):
    names = {"orbits", "source", "store", "given", "view"}
    asked = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr") and node.args
        if {part.attr if isinstance(part, ast.Attribute) else part.id for part in [node.args[0]]
            if isinstance(part, (ast.Attribute, ast.Name))} & names
        and path.name != "orbits.py"
    ]  # fmt: skip
    assert not asked
