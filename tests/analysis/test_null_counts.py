"""Counts beside their nulls: raw orbits, and a network with random weights."""

from dataclasses import replace

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.analysis.evidence.null_counts import FAMILIES, QUANTITIES, VARIANCE, Share, interval_of, raw_orbits
from groupcc.data import Orbits
from groupcc.errors import ArgumentError
from groupcc.report.null_words import claim
from groupcc.report.words import headline
from groupcc.zoo.tuned import tuned


class Photographs(Orbits):
    def __init__(self, acts, images):
        self.acts, self.image_ids = acts, torch.arange(len(acts)) * images // len(acts)

    def __len__(self):
        return len(self.acts)

    def take(self, indices):
        return self.acts[indices].clone()


def pipeline(acts, nulls=None, images=50):
    orbits = Photographs(acts, images)
    config = CrosscoderConfig(group="D8", d_in=acts.shape[2], n_latents=96, k=3, encoder="orbit")
    settings = TrainConfig(steps=250, batch_size=256, progress=False, lr=5e-3)
    return analyze(train(GroupCrosscoder(config), orbits, settings).crosscoder, orbits, nulls=nulls)


@pytest.fixture(scope="module")
def atlases():
    """Lines and crosses, and chiral shapes: (with the null, the null)."""
    lines = tuned("D8", n_latents=4, shapes=("D2", "D2", "D4", "D2"), width=45.0, seed=0).dictionary
    hooks = tuned("D8", n_latents=4, shapes=("C1",), width=60.0, seed=0).dictionary
    null = pipeline(hooks.sample(4000, n_active=2, noise=0.1, seed=1)[0])
    return pipeline(lines.sample(4000, n_active=2, noise=0.1, seed=1)[0], null), null


def test_wilson_by_hand():
    share = interval_of(0, 100)
    assert (share.value, share.low) == (0, 0)
    assert share.high == pytest.approx(0.037, abs=1e-3)
    half = interval_of(50, 100)
    assert (half.low, half.high) == (pytest.approx(0.404, abs=1e-3), pytest.approx(0.596, abs=1e-3))
    assert interval_of(50, 100, error=0.1).low == pytest.approx(0.5 - 1.96 * 0.1)
    assert interval_of(0, 0) == Share(0, 0, 1)


def test_newcombes_difference_by_hand():
    """0.06 − 0.0 − √(0.03² + 0.03²) = 0.018; with 0.06 in place of the second 0.03 it is −0.007."""
    own = Share(0.06, 0.03, 0.11)
    assert own.exceeds(Share(0.0, 0.0, 0.03))
    assert not own.exceeds(Share(0.0, 0.0, 0.06))
    assert not own.exceeds(own)


def test_what_exceeds_the_null_is_claimed_and_nothing_else(atlases):
    atlas, null = atlases
    nulls = atlas.nulls
    assert set(nulls.own) == set(QUANTITIES)
    assert nulls.own["180"].value == pytest.approx(
        atlas.kind_counts["180"] / (atlas.n_latents - atlas.kind_counts["dead"])
    )
    assert nulls.random == null.nulls.own
    assert "180" in nulls.claims
    assert nulls.own["180"].low > nulls.random["180"].high
    text = claim(atlas)
    assert text.startswith("More than the same network has with random weights: ")
    assert "repeat every 180°" in text
    assert headline(atlas)[0] == text


def test_against_itself_nothing_is_claimed(atlases):
    _, null = atlases
    own = replace(null.nulls, random=null.nulls.own)
    atlas = replace(null, parts={**null.parts, "nulls": own})
    assert own.claims == []
    assert claim(atlas).startswith("Nothing here exceeds")


def test_without_the_null_the_page_says_so(atlases, tmp_path):
    _, null = atlases
    assert null.nulls.claims is None
    assert "not compared with a network with random weights" in claim(null)
    page = null.report(tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'id="nulls"' in page
    assert claim(analyze(GroupCrosscoder(null.config))) == "", "without orbits there is nothing to compare"


def test_raw_orbits_by_construction():
    """Half of the orbits are alike under every transform, the others lines."""
    G = groupcc.group("D8")
    dictionary = tuned("D8", n_latents=2, shapes=("O2", "D2"), width=60.0, seed=1).dictionary
    sign = torch.tensor([1.0, -1.0]).repeat(400)[:, None, None]
    which = torch.arange(800) // 2 % 2
    acts = sign * dictionary.base[which]
    shares = raw_orbits(Photographs(acts, 40), G, 0.15)
    assert shares["invariant"].value == pytest.approx(0.5)
    assert shares["180"].value == pytest.approx(0.5)
    mean = dictionary.base[1].mean(0)
    expected = 0.5 + 0.5 * float(16 * mean.square().sum())
    assert shares[VARIANCE].value == pytest.approx(expected, abs=1e-5)
    assert shares["180"].low <= 0.5 <= shares["180"].high
    assert FAMILIES not in shares


def test_few_photographs_make_wide_intervals():
    dictionary = tuned("D8", seed=0).dictionary
    acts = dictionary.sample(1000, n_active=1, seed=1)[0]
    # In each of the photographs one shape alone.
    order = torch.argsort(acts.flatten(1) @ acts[0].flatten())
    few, many = (raw_orbits(Photographs(acts[order], n), dictionary.group, 0.15)["mirror"] for n in (4, 500))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_saved_and_loaded(atlases, tmp_path):
    atlas, _ = atlases
    again = groupcc.Atlas.load(atlas.save(tmp_path / "atlas"))
    assert (again.nulls.own, again.nulls.random, again.nulls.raw) == (
        atlas.nulls.own,
        atlas.nulls.random,
        atlas.nulls.raw,
    )


def test_wrong_nulls():
    with pytest.raises(ArgumentError, match="nulls: expected the Atlas of the network with random weights; got int"):
        analyze(GroupCrosscoder(CrosscoderConfig(group="D4", d_in=3, n_latents=8, k=2)), nulls=3)
