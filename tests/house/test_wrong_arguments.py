"""What a newcomer passes by mistake: the error names the argument and the remedy, from each entry point."""

import numpy as np
import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig
from groupcc.errors import ArgumentError, DataError

ACTS = torch.randn(40, 6, 5, generator=torch.Generator().manual_seed(0))
CONFIG = CrosscoderConfig(group="D3", d_in=5, n_latents=8, k=2)
FEW = TrainConfig(steps=2, batch_size=8, progress=False)


@pytest.mark.parametrize(
    ("orbits", "remedy"),
    [(np.zeros((4, 6, 5), np.float32), r"torch\.from_numpy"), ("orbits", r"OrbitStore\.open"), ([1, 2], "store")],
)
def test_orbits_of_a_wrong_type(orbits, remedy):
    crosscoder = GroupCrosscoder(CONFIG)
    for use in (groupcc.evaluate, groupcc.analyze, groupcc.train):
        with pytest.raises(ArgumentError, match=f"orbits: expected .*{remedy}"):
            use(crosscoder, orbits)


def test_something_else_than_a_crosscoder_or_config():
    with pytest.raises(ArgumentError, match="crosscoder: expected a GroupCrosscoder; got CrosscoderConfig"):
        groupcc.train(CONFIG, ACTS)
    with pytest.raises(ArgumentError, match="config: expected a TrainConfig; got dict"):
        groupcc.train(GroupCrosscoder(CONFIG), ACTS, {"steps": 3})
    for wrong in (CONFIG, "runs/a/crosscoder", ACTS):
        with pytest.raises(ArgumentError, match=r"crosscoder: expected .*from_pretrained"):
            groupcc.analyze(wrong)


def test_orbits_that_require_gradients_and_indices_in_a_list():
    crosscoder = groupcc.train(GroupCrosscoder(CONFIG), ACTS.clone().requires_grad_(), FEW).crosscoder
    some = groupcc.evaluate(crosscoder, ACTS, indices=[3, 5])
    assert some == groupcc.evaluate(crosscoder, ACTS, indices=torch.tensor([3, 5]))


def test_a_device_that_is_not_there():
    with pytest.raises(ArgumentError, match=r"device: expected .*nonsense"):
        groupcc.train(GroupCrosscoder(CONFIG), ACTS, TrainConfig(device="nonsense", progress=False))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", "high"),
        ("lr", float("inf")),
        ("held_out", "some"),
        ("grad_clip", float("nan")),
        ("warmup_steps", "5"),
        ("decay_fraction", None),
        ("betas", None),
        ("betas", (0.9, 1.5)),
        ("betas", (0.9,)),
        ("seed", 0.5),
    ],
)
def test_settings_of_training_out_of_range_or_type(name, value):
    with pytest.raises(ArgumentError, match=f"{name}: expected"):
        TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1),
        ("seed", "a"),
        ("forward_batch", 2.5),
        ("forward_batch", None),
        ("max_images", 2.0),
        ("max_skipped", -1),
        ("shard_images", True),
        ("input_size", 33.0),
    ],
)
def test_settings_of_a_harvest_out_of_range_or_type(name, value):
    with pytest.raises(ArgumentError, match=f"{name}: expected a"):
        groupcc.harvest(torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3)), "0", torch.rand(1, 3, 33, 33), **{name: value})


def test_an_index_that_lacks_something_is_no_store(tmp_path):
    (tmp_path / "index.json").write_text('{"format": "groupcc-orbits", "format_version": 1}')
    with pytest.raises(DataError, match=r"not the index of an orbit store .*lacks complete, settings"):
        groupcc.OrbitStore.open(tmp_path)


@pytest.mark.parametrize("name", ["aux_coefficient", "l1_coefficient"])
def test_weights_of_losses_are_finite(name):
    options = {"group": "C2", "d_in": 2, "n_latents": 4, "sparsity": "l1", "l1_coefficient": 1.0}
    with pytest.raises(ArgumentError, match=f"{name}: expected"):
        CrosscoderConfig(**options | {name: float("inf")})
