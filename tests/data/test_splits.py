"""Examples dealt out by photograph."""

import pytest
import torch

from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import fingerprint, parts_by_image, split_by_image
from groupcc.errors import ArgumentError


class _Orbits(Orbits):
    def __init__(self, image_ids, photographs=None):
        self.image_ids = torch.tensor(image_ids)
        self.photographs = photographs

    @property
    def photograph_ids(self):
        return self.image_ids if self.photographs is None else torch.tensor(self.photographs)

    def __len__(self):
        return len(self.image_ids)

    def take(self, indices):
        return torch.zeros(len(indices), 2, 3)


def parts(image_ids, count, chosen=None):
    chosen = None if chosen is None else torch.tensor(chosen)
    return [part.tolist() for part in parts_by_image(_Orbits(image_ids), count, chosen)]


def test_images_are_dealt_out_in_turn_and_stay_whole():
    assert parts([4, 4, 7, 9, 9, 11], 3) == [[0, 1, 5], [2], [3, 4]]


def test_fewer_images_than_parts_leave_none_empty():
    assert parts([0, 0, 1], 10) == [[0, 1], [2]]
    assert parts([5, 5], 10) == [[0, 1]]


def test_only_the_chosen_examples():
    # Of the images chosen, not of all: else image 7 would leave the second part empty.
    assert parts([4, 7, 9, 9, 11], 2, [0, 3, 4]) == [[0, 4], [3]]


def test_photographs_stay_whole():
    orbits = _Orbits([0, 0, 1, 2, 3, 4], [0, 0, 0, 1, 1, 2])
    assert [part.tolist() for part in parts_by_image(orbits, 2)] == [[0, 1, 2, 5], [3, 4]]
    for seed in range(5):
        for share in (0.1, 0.4, 0.9):
            sides = [{orbits.photographs[i] for i in side.tolist()} for side in split_by_image(orbits, share, seed)]
            assert all(sides)
            assert not sides[0] & sides[1]


def test_one_photograph_can_not_be_split():
    with pytest.raises(ArgumentError, match=r"held_out: expected 0 where all .* one photograph; got 0\.5.*groups"):
        split_by_image(_Orbits([0, 1, 2], [0, 0, 0]), 0.5, 0)


def test_a_fingerprint_knows_the_photographs():
    """And is what it was where each image is a photograph of its own."""
    alone, grouped = _Orbits([0, 1, 2]), _Orbits([0, 1, 2], [0, 0, 1])
    assert fingerprint(alone) == fingerprint(_Orbits([0, 1, 2], [0, 1, 2])) != fingerprint(grouped)


def test_an_object_may_know_photographs_or_not():
    class Plain:
        image_ids = torch.tensor([0, 1, 2])

        def __len__(self):
            return 3

        def take(self, indices):
            return torch.zeros(len(indices), 2, 3)

    plain, known = Plain(), Plain()
    known.photograph_ids = torch.tensor([0, 0, 1])
    assert torch.equal(as_orbits(plain, 2, 3).photograph_ids, plain.image_ids)
    assert torch.equal(as_orbits(known, 2, 3).photograph_ids, known.photograph_ids)
