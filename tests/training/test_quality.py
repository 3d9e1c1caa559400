"""A dictionary that does not describe its layer is said to be so, with the remedy, before anything else is."""

import math
import re
import warnings

import pytest
import torch

import groupcc
from groupcc.data.splits import split_by_image
from groupcc.errors import QualityWarning
from groupcc.models.quality import Quality
from groupcc.report.words import summary
from helpers.training_samples import Images, data, make, settings

GOOD = {
    "held_out_fvu": 0.3,
    "training_fvu": 0.25,
    "dead_fraction": 0.05,
    "examples_a_latent": 5000.0,
    "photographs": 80,
    "held_out_photographs": 9,
}


def test_nothing_speaks_against_a_good_one_nor_against_one_of_which_nothing_is_known():
    assert Quality(**GOOD).doubts == []
    assert Quality().doubts == []
    assert Quality.from_provenance({}).doubts == []
    assert Quality.from_provenance({"quality": {**GOOD, "of_a_later_version": 1}}) == Quality(**GOOD)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"held_out_fvu": 0.82, "training_fvu": 0.8}, r"misses 82 % of the variance on held-out photographs.*--steps"),
        ({"held_out_fvu": None, "training_fvu": 0.9}, r"misses 90 % of the variance on its training examples"),
        ({"dead_fraction": 0.87}, r"87 % of the latents are dead.*--resample-every"),
        ({"held_out_fvu": 0.6, "training_fvu": 0.2}, r"FVU is 0\.600 on held-out photographs and 0\.200 on its own"),
        ({"examples_a_latent": 12.0}, r"active in 12 examples on average.*--latents"),
        ({"photographs": 3}, r"has seen 3 photographs: what is found is about them"),
        ({"photographs": 1}, r"has seen 1 photograph: what is found is about it"),
    ],
)
def test_each_doubt_names_its_remedy(changed, said):
    (doubt,) = Quality(**{**GOOD, **changed}).doubts
    assert re.search(said, doubt), doubt


def test_a_small_gap_between_small_errors_is_no_matter():
    assert Quality(**{**GOOD, "held_out_fvu": 0.08, "training_fvu": 0.02}).doubts == []


def noise(n=400):
    return torch.randn(n, 6, 5, generator=torch.Generator().manual_seed(0))


def test_train_and_analyze_warn_and_the_page_begins_with_it(tmp_path):
    with pytest.warns(QualityWarning) as warned:
        result = groupcc.train(make(), Images(noise()), settings(steps=5, out=tmp_path / "run"))
    doubts = result.quality.doubts
    assert [str(w.message) for w in warned] == [f"train: {doubt}" for doubt in doubts]
    assert len(doubts) >= 2
    assert warned[0].filename == __file__, "the line of the caller"
    assert Quality.from_provenance(result.crosscoder.provenance) == result.quality
    saved = groupcc.GroupCrosscoder.from_pretrained(tmp_path / "run" / "crosscoder")
    with pytest.warns(QualityWarning, match="analyze: It misses") as warned:
        atlas = groupcc.analyze(saved, noise())
    assert warned[0].filename == __file__
    atlas = groupcc.Atlas.load(atlas.save(tmp_path / "atlas"))
    assert atlas.quality == result.quality
    page = atlas.report(tmp_path / "report.html").read_text(encoding="utf-8")
    main = page[page.index("<main") :]
    assert main.index("It misses") < main.index('class="headline"')
    lines = summary(atlas).splitlines()
    assert lines[0].startswith("Not to be read as a finding: It misses")
    assert [line.split(" (")[0] for line in lines[-3:]] == ["held out", "trained on", lines[-1].split(" (")[0]]


def test_figures_are_those_of_the_two_sides():
    acts = Images(data(300))
    result = groupcc.train(make(), acts, settings(steps=60, lr=1e-2, held_out=0.2))
    training, held_out = split_by_image(acts, 0.2, 0)
    quality = result.quality
    for indices, fvu in ((training, quality.training_fvu), (held_out, quality.held_out_fvu)):
        assert groupcc.training.evaluation.evaluate(result.crosscoder, acts, indices=indices)["fvu"] == pytest.approx(
            fvu
        )
    assert quality.photographs + quality.held_out_photographs == len(acts.image_ids.unique())
    assert quality.examples_a_latent == pytest.approx(60 * 32 * 2 / 24, rel=0.05)
    assert math.isfinite(quality.dead_fraction)


def test_no_warning_of_a_good_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error", QualityWarning)
        result = groupcc.train(make(n_latents=12), data(4000), settings(steps=400, batch_size=64, lr=1e-2))
    assert result.quality.doubts == []
