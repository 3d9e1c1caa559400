"""Activations' estimate of the stabilizers: on images that training has not seen, and said which these are."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, train
from groupcc.analysis import Atlas, MeasuredOn, analyze
from groupcc.analysis.evidence.measured_on import choose_examples
from groupcc.analysis.evidence.moved_activations import FEWEST_FIRINGS, MOST_FIRINGS, measure_moved
from groupcc.data import as_orbits
from groupcc.data.splits import fingerprint, held_out_examples, split_by_image
from groupcc.errors import ArgumentError
from groupcc.training.baseline import regress_decoder, train_sae
from groupcc.zoo.planted import planted
from helpers.dictionaries import reader
from helpers.training_samples import Images

SETTINGS = TrainConfig(steps=2, batch_size=32, held_out=0.3, seed=4, progress=False)


def data(n=400, noise=0.0):
    truth = planted("D4", d_in=24, n_latents=4, stabilizers=["D2"], seed=1)
    return truth, truth.sample(n, n_active=1, noise=noise)[0]


def crosscoder(**options):
    return GroupCrosscoder(CrosscoderConfig(group="D4", d_in=24, n_latents=4, k=1, **options))


class Grouped(Images):
    """The examples of `orbits`, in which two images show one photograph."""

    def __init__(self, orbits):
        super().__init__(orbits.acts)
        self.photograph_ids = orbits.image_ids // 2


@pytest.mark.parametrize("tied", [False, True])
def test_what_training_held_out_is_found_again(tied, tmp_path):
    orbits = Images(data()[1])
    trained = train(crosscoder(tied=tied, encoder="orbit"), orbits, dataclasses.replace(SETTINGS, out=tmp_path))
    _, expected = split_by_image(orbits, 0.3, 4)
    read = GroupCrosscoder.from_pretrained(trained.directory / "crosscoder")
    for made in (trained.crosscoder, read, *([trained.crosscoder.untie()] if tied else [])):
        assert torch.equal(held_out_examples(made.provenance, orbits), expected)
        assert analyze(made, orbits).evidence.activations_on == MeasuredOn("held-out", 12, 120)


def test_the_regressed_baseline_knows_it_too():
    orbits = Images(data()[1])
    sae = train_sae(orbits, CrosscoderConfig(group="D4", d_in=24, n_latents=4, k=1), SETTINGS).crosscoder
    made = regress_decoder(sae, orbits, "D4", SETTINGS)
    assert torch.equal(held_out_examples(made.provenance, orbits), split_by_image(orbits, 0.3, 4)[1])


def test_other_data_and_no_training_are_unknown():
    orbits = Images(data()[1])
    made = crosscoder()
    assert held_out_examples(made.provenance, orbits) is None
    trained = train(made, orbits, SETTINGS).crosscoder
    other = Images(data()[1] + 1)
    assert held_out_examples(trained.provenance, other) is None
    assert held_out_examples(trained.provenance, Grouped(orbits)) is None
    assert analyze(trained, other).evidence.activations_on == MeasuredOn("unknown", 40, 400)
    everything = train(crosscoder(), orbits, dataclasses.replace(SETTINGS, held_out=0.0)).crosscoder
    assert len(held_out_examples(everything.provenance, orbits)) == 0
    assert analyze(everything, orbits).evidence.activations_on == MeasuredOn("training", 40, 400)


@pytest.mark.parametrize("augment", [False, True])
def test_whole_photographs_are_held_out(augment):
    grouped = Grouped(Images(data()[1]))
    training, expected = split_by_image(as_orbits(grouped, 8, 24), 0.3, 4)
    assert not set(grouped.photograph_ids[training].tolist()) & set(grouped.photograph_ids[expected].tolist())
    settings = dataclasses.replace(SETTINGS, augment=augment)
    trained = train(crosscoder(), grouped, settings)
    assert trained.metrics["n_examples"] == len(expected) == 120
    assert torch.equal(held_out_examples(trained.crosscoder.provenance, as_orbits(grouped, 8, 24)), expected)
    config = CrosscoderConfig(group="D4", d_in=24, n_latents=4, k=1)
    assert train_sae(grouped, config, settings).metrics["n_examples"] == 120
    made = regress_decoder(train_sae(grouped, config, settings).crosscoder, grouped, "D4", settings)
    assert torch.equal(held_out_examples(made.provenance, as_orbits(grouped, 8, 24)), expected)


def test_the_record_of_an_older_demo_is_read():
    """It trained on a view of a store, and recorded which of the store's images were held out."""
    orbits = Images(data()[1])
    made = crosscoder()
    made.provenance["split"] = {"data": fingerprint(as_orbits(orbits, 8, 24)), "held_out_images": [3, 5]}
    expected = torch.isin(orbits.image_ids, torch.tensor([3, 5])).nonzero().flatten()
    assert torch.equal(held_out_examples(made.provenance, as_orbits(orbits, 8, 24)), expected)


def test_only_held_out_images_have_a_say():
    """Noise in the first half of the examples, which is not held out."""
    truth, acts = data()
    made = reader(truth.atoms, "D4")
    spoilt = acts.clone()
    spoilt[:200] += 3 * torch.randn(200, 8, 24, generator=torch.Generator().manual_seed(0))
    apart = analyze(made, spoilt, held_out=torch.arange(200, 400)).evidence
    alone = analyze(made, acts, held_out=torch.arange(200, 400)).evidence
    torch.testing.assert_close(apart.activations.autocorrelation, alone.activations.autocorrelation)
    assert not torch.equal(apart.data, alone.data)  # the resamples are of all
    assert apart.activations_on == MeasuredOn("held-out", 200, 200)
    whole = analyze(made, spoilt).evidence
    assert (whole.activations.autocorrelation - alone.activations.autocorrelation).abs().max() > 0.05
    for held_out in (acts[200:], as_orbits(acts[200:], 8, 24), range(200, 400), list(range(200, 400))):
        other = analyze(made, spoilt, held_out=held_out).evidence
        torch.testing.assert_close(other.activations.autocorrelation, alone.activations.autocorrelation)
        assert other.activations_on == apart.activations_on


def test_too_few_firings_on_held_out_images_say_nothing(tmp_path):
    truth, acts = data()
    made = reader(truth.atoms, "D4")
    own = made.encode(acts).indices[:, 0]
    few = (own == 0).nonzero()[: FEWEST_FIRINGS - 1, 0]
    enough = (own == 1).nonzero()[:FEWEST_FIRINGS, 0]
    atlas = analyze(made, acts, held_out=torch.cat([few, enough]))
    rows = atlas.table()
    assert [row["stabilizer_activations"] for row in rows[:2]] == [None, "D2"]
    assert [row["activations_on"] for row in rows[:2]] == [None, "held-out"]
    assert rows[0]["agreement"] == "agree"  # with the encoder
    assert atlas.evidence.stability[:2].min() > 0.9
    read = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert read.evidence.activations_on == atlas.evidence.activations_on == MeasuredOn("held-out", 9, 9)
    assert read.table() == rows


def test_an_atlas_from_before_says_nothing_of_it(tmp_path, monkeypatch):
    truth, acts = data()
    atlas = analyze(reader(truth.atoms, "D4"), acts)
    assert atlas.table()[0]["activations_on"] == "unknown"
    monkeypatch.setattr(type(atlas.evidence.activations_on), "tensor", lambda self: None)
    read = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert read.evidence.activations_on is None
    assert read.table()[0] == atlas.table()[0] | {"activations_on": None}


def test_the_first_examples_are_of_many_images():
    orbits = Images(data()[1])
    made = crosscoder()
    source, chosen, on = choose_examples(made, orbits, None, 40)
    assert source is orbits
    assert (on.examples, len(chosen), len(chosen.unique())) == (40, 40, 40)
    assert on.images == len(orbits.image_ids[chosen].unique()) > 15
    assert torch.equal(chosen, choose_examples(made, orbits, None, 40)[1])


def test_reading_stops_once_all_have_enough():
    truth, acts = data(2000)
    made = reader(truth.atoms, "D4").train()
    read = []

    class Counted(Images):
        def take(self, indices):
            read.append(len(indices))
            return super().take(indices)

    asked = torch.ones(len(truth.atoms), dtype=torch.bool)
    found = measure_moved(made, Counted(acts), torch.arange(2000), asked, batch_size=50)
    assert made.training
    assert (found.count == MOST_FIRINGS).all()
    assert sum(read) < 1000
    with torch.no_grad():  # one that never fires: the others alone, or to the end
        made.b_enc[0] = -1e6
    for waited, most in ((asked, 2000), (asked & (torch.arange(len(asked)) > 0), 1500)):
        read.clear()
        measure_moved(made, Counted(acts), torch.arange(2000), waited, batch_size=50)
        assert sum(read) <= most
        assert (sum(read) == 2000) == (most == 2000)


@pytest.mark.parametrize(
    "held_out", [torch.arange(0), [400], [-1], [0.5], torch.ones(400, dtype=torch.bool), "images", torch.ones(2, 2)]
)
def test_wrong_held_out(held_out):
    truth, acts = data()
    with pytest.raises(ArgumentError, match=r"held_out: expected .* from 0 to 399"):
        analyze(reader(truth.atoms, "D4"), acts, held_out=held_out)


def test_wrong_arguments():
    truth, acts = data()
    made = reader(truth.atoms, "D4")
    with pytest.raises(ArgumentError, match="held_out: expected orbits"):
        analyze(made, held_out=[0])
    with pytest.raises(ArgumentError, match="evidence_examples"):
        analyze(made, acts, evidence_examples=-1)


def test_in_words():
    assert str(MeasuredOn("held-out", 1200, 5000)) == "1,200 images, held out from training"
    assert str(MeasuredOn("training", 1, 5)) == "1 image, all seen in training"
    assert str(MeasuredOn("unknown", 2, 5)) == "2 images, seen in training or not: unknown"
