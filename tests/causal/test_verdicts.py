"""Each verdict of the causal check on a network that is built so that the verdict must be reached."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import groupcc
from groupcc.causal import VERDICTS, FamilyEffect
from helpers.causal_nets import Net, pictures, tied, untied

ROTATIONS = [1, 2, 3]
"""Of D4. They take the first four poses to one another, and the last four, the mirrored ones."""

MADE = {"untied": untied(), "identity": tied("identity"), "orbit": tied("orbit")}
every_form = pytest.mark.parametrize("made", MADE.values(), ids=list(MADE))


class PlaceBlind(Net):
    """Reads each pose of each shape by its sum over the map."""

    def tail(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((2, 3)) @ self.mix.weight[:, :, 0, 0].T


class Summing(Net):
    """Sums over the poses of the first shape, and reads what is where on the map."""

    def tail(self, maps: torch.Tensor) -> torch.Tensor:
        sums = maps[:, :8].sum(1)
        where = torch.randn(sums.shape[1:], generator=torch.Generator().manual_seed(1))
        return torch.stack([(sums * where).mean((1, 2)), (sums * where.T).mean((1, 2))], 1)


class Pooling(Net):
    """Sums over the poses of the first shape, pixel by pixel, and pools over the map: hardly any place is left."""

    def tail(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(maps[:, :8].sum(1) - torch.tensor(4.0)).mean((1, 2))[:, None] * torch.tensor([1.0, -2.0])


class Linear(Net):
    """Reads the sum over the poses of the first shape and over the map."""

    def tail(self, maps: torch.Tensor) -> torch.Tensor:
        return maps[:, :8].sum((1, 2, 3))[:, None] * torch.tensor([1.0, -2.0])


def first(net: nn.Module, made: groupcc.GroupCrosscoder, count: int = 8, **options) -> FamilyEffect:
    """The effect of the first shape's family at the output."""
    atlas = groupcc.analyze(made)
    options = {"only": [int(atlas.families.labels[0])], "progress": False} | options
    return groupcc.causal_check(net.eval(), "layer", made, pictures(count), atlas, **options).effects[0]


def reading(channels: list[int]) -> Net:
    """A network whose tail reads these poses of the first shape, and all of the second."""
    net = Net()
    left_out = [channel for channel in range(8) if channel not in channels]
    net.mix.weight.data[:, left_out] = 0.0
    return net


def with_mirrored_poses_broken(net: Net) -> Net:
    """In place of the first shape's mirrored poses the layer has filters of their own."""
    net.layer[0].weight.data[4:8] = torch.randn(4, 1, 5, 5, generator=torch.Generator().manual_seed(7))
    return net


@every_form
def test_yes_where_the_tail_reads_poses(made):
    effect = first(Net(), made)
    assert (effect.verdict, effect.reason) == ("yes", None)
    assert effect.reposed == pytest.approx(1.0, abs=1e-4)
    assert effect.pose_margin > 0.4


@every_form
def test_yes_where_the_tail_reads_poses_and_no_place(made):
    effect = first(PlaceBlind(), made, elements=ROTATIONS)
    assert effect.verdict == "yes"
    assert effect.turned == pytest.approx(1.0, abs=1e-3)
    assert effect.placed < 0


@every_form
def test_place_only_where_the_tail_sums_over_poses(made):
    effect = first(Summing(), made)
    assert effect.verdict == "place only"
    assert effect.reposed == pytest.approx(1.0, abs=1e-4)
    assert effect.placed == pytest.approx(1.0, abs=1e-4)
    assert effect.pose_margin == pytest.approx(0.0, abs=1e-4)
    assert effect.turned == pytest.approx(effect.unmoved, abs=1e-4)
    assert effect.turned < 0.5
    assert effect.effect > 0.05


@every_form
def test_place_only_where_the_tail_pools_too(made):
    effect = first(Pooling(), made)
    assert effect.reposed == pytest.approx(1.0, abs=1e-3)
    assert effect.verdict == "place only"


@every_form
@pytest.mark.parametrize("weight", [0.0, 1e-7])
def test_not_read_where_the_family_has_no_weight(made, weight):
    net = Net()
    net.mix.weight.data[:, :8] *= weight
    effect = first(net, made)
    assert (effect.verdict, effect.reason) == ("not read", None)
    assert effect.positions > 0
    assert effect.effect < 1e-6
    assert first(net, made, only=[1]).verdict == "yes"


@pytest.mark.parametrize("made", [MADE["untied"], MADE["identity"]], ids=["untied", "identity"])
def test_no_where_the_tail_reads_what_does_not_turn(made):
    """One layer and one family: the tail decides. The poses that turn into one another are its first four alone."""
    moved = first(with_mirrored_poses_broken(reading([0, 1, 2, 3])), made, elements=ROTATIONS)
    assert moved.verdict == "yes"
    broken = first(with_mirrored_poses_broken(reading([4, 5, 6, 7])), made, elements=ROTATIONS)
    assert (broken.verdict, broken.reason) == ("no", None)
    assert broken.measured == pytest.approx(1.0, abs=1e-3)
    assert broken.reposed < 0.4
    assert broken.effect > 0.05


def test_undecided_where_the_dictionary_misses_the_layer():
    """Tied latents with encoder "orbit" move with the orbit whatever the layer does: they account for no such layer."""
    effect = first(with_mirrored_poses_broken(reading([4, 5, 6, 7])), MADE["orbit"], elements=ROTATIONS)
    assert effect.measured == pytest.approx(effect.reposed, abs=1e-4)
    assert effect.verdict == "undecided"
    assert "the error of the dictionary" in effect.reason


@pytest.mark.parametrize("count", [1, 2])
def test_undecided_with_too_few_images(count):
    for net in (Net(), Summing(), reading([])):
        effect = first(net, untied(), count)
        assert effect.verdict == "undecided"
        assert effect.reason == f"active on {count} image{'s'[: count - 1]}, and an interval needs 3"
    assert first(Net(), untied(), count).reposed_error is None


def test_undecided_where_the_family_is_active_on_too_few_images():
    """Eight images, two of which show anything: the others tell nothing and make no score more certain."""
    atlas = groupcc.analyze(untied())
    shown = pictures(8)
    shown[2:] = 0.0
    effect = groupcc.causal_check(Net().eval(), "layer", untied(), shown, atlas, only=[0], progress=False).effects[0]
    assert effect.reposed == pytest.approx(1.0, abs=1e-4)
    assert (effect.verdict, effect.reason) == ("undecided", "active on 2 images, and an interval needs 3")


def test_undecided_where_the_family_never_fires():
    made = untied()
    with torch.no_grad():
        made.b_enc[:8] = -1e3
    effect = first(Net(), made)
    assert (effect.verdict, effect.reason) == ("undecided", "never active on these images")


def test_undecided_where_neither_pose_nor_place_is_read():
    effect = first(Linear(), untied(), elements=ROTATIONS)
    assert effect.effect > 0.05
    assert effect.verdict == "undecided"
    assert effect.reason == "the average in its place does as well, so neither pose nor place makes a difference"


REACHED: dict[str, Callable[[], FamilyEffect]] = {
    "yes": lambda: first(Net(), untied()),
    "place only": lambda: first(Summing(), untied()),
    "no": lambda: first(with_mirrored_poses_broken(reading([4, 5, 6, 7])), untied(), elements=ROTATIONS),
    "not read": lambda: first(reading([]), untied()),
    "undecided": lambda: first(Net(), untied(), 2),
}


def test_there_are_no_other_verdicts():
    assert [made().verdict for made in REACHED.values()] == list(REACHED) == list(VERDICTS)
