"""Examples dealt out by image."""

import torch

from groupcc.data.splits import parts_by_image


class _Orbits:
    def __init__(self, image_ids):
        self.image_ids = torch.tensor(image_ids)

    def __len__(self):
        return len(self.image_ids)


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
