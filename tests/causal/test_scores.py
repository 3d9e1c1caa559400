"""Scores, their intervals and the verdicts on them, from sums of squares that are written out."""

from __future__ import annotations

import numpy as np
import pytest

from groupcc.causal import CONDITIONS
from groupcc.causal.result import FamilyEffect, family_effect
from groupcc.causal.scores import CONTROLS, Estimate, Tally

ORDER = ("ablated", "averaged", "reposed", "measured", "placed", "turned", "unmoved", "wrong", "random")


def judged(errors: np.ndarray, images: int | None = None, variance: float = 160.0) -> FamilyEffect:
    tally = Tally(images=len(errors) if images is None else images, changed=10, power=1.0, aligned=0.9)
    return family_effect(0, 2, "output", tally, errors, variance)


def sums(**changed: float) -> np.ndarray:
    """Four images alike: a quarter of the average's error is left by what is moved, all of it by the controls."""
    known = dict(zip(ORDER, (8.0, 4.0, 1.0, 0.5, 4.0, 4.0, 4.0, 4.0, 4.0), strict=True))
    return np.tile([(known | changed)[name] for name in CONDITIONS], (4, 1))


def test_scores_of_known_sums():
    effect = judged(sums(placed=2.0))
    assert (effect.reposed, effect.measured, effect.placed, effect.turned) == (0.75, 0.875, 0.5, 0.0)
    assert (effect.margin, effect.pose_margin, effect.effect) == (0.25, 0.25, 0.2)
    assert (effect.reposed_error, effect.margin_error, effect.pose_margin_error) == (0.0, 0.0, 0.0)
    assert (effect.verdict, effect.reason, effect.positions, effect.similarity) == ("yes", None, 10, 0.9)


VERDICTS = [
    ({}, "yes", None),
    ({"turned": 1.0}, "yes", None),
    ({"placed": 1.1}, "place only", None),
    ({"placed": 0.5}, "place only", None),
    ({"placed": 1.1, "unmoved": 1.1}, "place only", "moving neither place nor pose does as well too"),
    ({"unmoved": 1.1}, "undecided", "moving neither place nor pose does as well"),
    ({"wrong": 1.1}, "undecided", "moving by another transform does as well"),
    ({"random": 1.0}, "undecided", "putting other latents in its place does as well"),
    ({"reposed": 3.0}, "no", None),
    ({"reposed": 9.0}, "no", None),
    ({"reposed": 3.0, "measured": 3.0}, "undecided", "the ceiling that the error of the dictionary sets"),
    ({"reposed": 9.0, "measured": 9.0}, "undecided", "lies between −1.25 and −1.25"),
    ({"ablated": 1e-5, "averaged": 1e-5}, "not read", None),
    ({"ablated": 1e-5}, "yes", None),
    ({"averaged": 0.0}, "undecided", "the average in its place does as well"),
    ({"averaged": 0.05}, "undecided", "the average in its place does as well"),
]


@pytest.mark.parametrize(("changed", "verdict", "reason"), VERDICTS)
def test_verdicts_of_known_sums(changed, verdict, reason):
    effect = judged(sums(**changed))
    assert effect.verdict == verdict
    assert (effect.reason is None) == (reason is None)
    assert (reason or "") in (effect.reason or "")


def test_intervals_that_do_not_tell():
    noise = np.array([0.2, 1.8, 0.4, 1.6])
    wide = sums()
    wide[:, CONDITIONS.index("reposed")] = 2 * noise
    assert "the score lies between" in judged(wide).reason
    doubtful = sums()
    doubtful[:, CONDITIONS.index("placed")] = 1 + noise
    effect = judged(doubtful)
    assert effect.pose_margin > 0.05
    assert "the score less that of moving the place alone is" in effect.reason
    assert {judged(wide).verdict, effect.verdict} == {"undecided"}


def test_a_margin_is_of_the_best_control():
    for name in CONTROLS:
        effect = judged(sums(**{name: 2.0}))
        assert (effect.margin, effect.verdict) == (0.25, "yes")
        assert effect.pose_margin == (0.25 if name == "placed" else 0.75)
    assert judged(sums(turned=0.0)).margin == 0.75


def test_standard_errors_are_those_of_the_jackknife():
    rng = np.random.default_rng(0)
    errors = sums() * rng.uniform(0.2, 3, (4, len(CONDITIONS)))
    left = np.array([np.delete(errors, i, 0).sum(0) for i in range(4)])
    scores = 1 - left / left[:, [1]]
    effect = judged(errors)
    told = [(scores[:, 2], effect.reposed_error), (scores[:, 2] - scores[:, 4], effect.pose_margin_error)]
    for values, error in told:
        assert error == pytest.approx(np.sqrt(3 / 4 * np.square(values - values.mean()).sum()))
    assert ORDER == CONDITIONS


def test_images_on_which_nothing_happens_make_nothing_certain():
    one = sums()
    one[1:] = 0.0
    effect = judged(one)
    assert (effect.reposed, effect.reposed_error) == (0.75, None)
    assert (effect.verdict, effect.reason) == ("undecided", "makes a difference on 1 image, and an interval needs 3")
    # An image on which the average happens to be right counts where the interchange is wrong.
    wrong_there = sums()
    wrong_there[3] = 0.0
    wrong_there[3, CONDITIONS.index("reposed")] = 9.0
    effect = judged(wrong_there)
    assert effect.reposed == pytest.approx(1 - 12 / 12)
    assert effect.verdict == "undecided"
    three = sums()
    three[3] = 0.0
    assert judged(three).verdict == "yes"
    assert "active on 2 images" in judged(sums(), images=2).reason


def test_an_interval_is_student_s():
    estimate = Estimate(value=1.0, error=0.1, images=5)
    assert (estimate.low, estimate.high) == pytest.approx((1 - 0.27764, 1 + 0.27764), abs=1e-5)
    assert np.isnan(Estimate(value=1.0, error=np.nan, images=2).low)


def test_a_read_out_that_never_changes():
    assert judged(np.zeros((4, len(CONDITIONS))), variance=0.0).verdict == "not read"
    effect = judged(sums(), variance=0.0)
    assert (effect.verdict, effect.effect) == ("yes", None)
