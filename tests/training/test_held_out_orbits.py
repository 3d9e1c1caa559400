"""Metrics of photographs that are no part of the orbits trained on."""

import pytest
import torch

import groupcc
from groupcc.data.splits import held_out_examples
from groupcc.errors import ArgumentError
from groupcc.training.baseline import train_sae
from groupcc.training.metrics import read_metrics
from helpers.training_samples import D, G, Images, data, make, same, settings, stopped_at


@pytest.fixture
def orbits():
    return Images(data(200)), Images(data(80, seed=1))


def test_metrics_are_those_of_the_held_out_orbits(orbits, tmp_path):
    seen, unseen = orbits
    config = settings(out=tmp_path, eval_every=20)
    result = groupcc.train(make(), seen, config, held_out_orbits=unseen)
    assert result.metrics == groupcc.evaluate(result.crosscoder, unseen)
    assert result.metrics["n_examples"] == 80
    assert (result.quality.photographs, result.quality.held_out_photographs) == (20, 8)
    assert result.quality.held_out_fvu == result.metrics["fvu"]
    on_the_way = [line for line in read_metrics(tmp_path / "metrics.jsonl") if "held_out/fvu" in line]
    assert [line["held_out/n_examples"] for line in on_the_way] == [80]


def test_training_sees_all_of_the_orbits(orbits):
    seen, unseen = orbits
    result = groupcc.train(make(), seen, settings(held_out=0.5), held_out_orbits=unseen)
    assert same(result.crosscoder, groupcc.train(make(), seen, settings(held_out=0)).crosscoder)
    assert result.crosscoder.provenance["settings"]["train"]["held_out"] == 0
    assert len(held_out_examples(result.crosscoder.provenance, groupcc.data.as_orbits(seen, G, D))) == 0


def test_an_interrupted_run_goes_on(orbits, tmp_path, monkeypatch):
    seen, unseen = orbits

    def run(out):
        return groupcc.train(make(), seen, settings(out=out), held_out_orbits=unseen)

    again = stopped_at(23, lambda: run(tmp_path / "a"), monkeypatch)
    whole = run(tmp_path / "b")
    assert again.resumed_from == 21
    assert same(again.crosscoder, whole.crosscoder)
    assert again.metrics == whole.metrics


@pytest.mark.parametrize("augment", [False, True])
def test_the_baseline_is_measured_on_them_too(orbits, augment):
    seen, unseen = orbits
    config = make().config
    result = train_sae(seen, config, settings(augment=augment, held_out=0.5), held_out_orbits=unseen)
    assert result.metrics["n_examples"] == 80
    assert same(result.crosscoder, train_sae(seen, config, settings(augment=augment, held_out=0)).crosscoder)


def test_wrong_held_out_orbits(orbits):
    seen, _ = orbits
    tensor = torch.zeros(4, G, D)
    same_again = groupcc.data.as_orbits(seen, G, D)
    for given, held_out in ((seen, seen), (same_again, same_again), (tensor, tensor.clone())):
        with pytest.raises(ArgumentError, match="held_out_orbits: expected orbits of other photographs; got those"):
            groupcc.train(make(), given, settings(), held_out_orbits=held_out)
    for wrong, message in (
        (tensor[:, :2], r"\[M >= 1, 6, 5\]"),
        ("orbits", "an orbit store"),
        (tensor[:0], "at least"),
    ):
        with pytest.raises(ArgumentError, match=f"held_out_orbits: expected .*{message}"):
            groupcc.train(make(), seen, settings(), held_out_orbits=wrong)
