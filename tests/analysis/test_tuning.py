"""Rotation period, tuning width, chirality and measured responses, on shapes whose harmonics are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from groupcc.analysis import Atlas, analyze, measure_responses, translate
from groupcc.analysis.evidence.activity import TopExamples
from groupcc.data import as_orbits
from groupcc.groups import group as make_group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from helpers.angular_shapes import CHIRAL, dictionary, shape


def dense_half_width(powers):
    """Half width at half height of Σ p_k cos kθ on a fine grid, each side by itself."""
    theta = np.linspace(0, 360, 72001)
    curve = sum(p * np.cos(k * np.radians(theta)) for k, p in powers.items())
    level = 0.5 * (curve[0] + curve.min())
    right = theta[np.argmax(curve <= level)]
    left = theta[np.argmax(curve[::-1] <= level)]
    return 0.5 * (left + right)


def test_period_and_width_of_known_harmonics():
    shapes = {
        "circle": {0: 1.0},
        "one": {1: 1.0},
        "curve": {1: 1.0, 2: 0.8, 3: 0.5},
        "line": {0: 0.5, 2: 1.0, 4: 0.5},
        "three": {3: 1.0},
        "grid": {0: 1.0, 4: 1.0},
        "five": {0: 1.0, 5: 1.0},
        "seven": {7: 1.0},
    }
    atlas = analyze(dictionary("D16", [shape("D16", c) for c in shapes.values()]), tolerance=0.15)
    periods = dict(zip(shapes, atlas.tuning.period.tolist(), strict=True))
    expected = {
        "circle": 0, "one": 360, "curve": 360, "line": 180, "three": 120, "grid": 90, "five": 72, "seven": 360 / 7
    }  # fmt: skip
    assert periods == pytest.approx(expected, abs=0.3)
    for latent, (name, c) in enumerate(shapes.items()):
        powers = {k: abs(v) ** 2 / sum(abs(x) ** 2 for x in c.values()) for k, v in c.items()}
        width, depth = float(atlas.tuning.width[latent]), float(atlas.tuning.depth[latent])
        if name == "circle":
            assert math.isnan(width)
            assert depth == pytest.approx(0, abs=1e-5)
            assert atlas.tuning.flat(latent) is True
        else:
            # The lowest point lies between elements for odd folds, within 3 % of it at n = 16.
            assert width == pytest.approx(dense_half_width(powers), rel=0.03), name
            assert atlas.tuning.flat(latent) is False
    # A five-fold shape repeats between the elements, where no stabilizer of the group can say so.
    assert atlas.stabilizers[6].order <= 2


def test_the_period_is_where_the_peak_is_not_where_the_fold_puts_it():
    # C = 0.9 cos 5θ + 0.1 cos θ: the slope of the second moves the peak from 72° to lower angles.
    atlas = analyze(dictionary("D16", [shape("D16", {5: math.sqrt(0.9), 1: math.sqrt(0.1)})]), tolerance=0.2)
    theta = np.radians(np.linspace(60, 84, 24001))
    peak = np.degrees(theta[np.argmax(0.9 * np.cos(5 * theta) + 0.1 * np.cos(theta))])
    assert peak < 71.8
    assert float(atlas.tuning.period[0]) == pytest.approx(peak, abs=0.05)


def test_a_repeat_must_come_back_at_every_multiple():
    # 0.8 at 90° is within the tolerance, 0.6 at 180° is not.
    atlas = analyze(dictionary("D16", [shape("D16", {4: math.sqrt(0.8), 1: math.sqrt(0.2)})]), tolerance=0.21)
    assert atlas.tuning.period.tolist() == [360.0]


def test_a_small_modulation_is_flat_and_has_no_width():
    atlas = analyze(dictionary("D8", [shape("D8", {0: 1.0, 1: 0.1})]), tolerance=0.15)
    assert float(atlas.tuning.depth[0]) == pytest.approx(2 * 0.01 / 1.01, rel=1e-3)
    assert atlas.tuning.width.isnan().all()
    assert atlas.table()[0]["tuning"] == "flat"


@pytest.mark.parametrize("group", ["D3", "C2", "D1"])
def test_few_rotations_have_no_width(group):
    atlas = analyze(dictionary(group, [shape(group, {0: 0.3, 1: 1.0})]))
    assert atlas.tuning.width.isnan().all()
    assert atlas.tuning.period.tolist() == [360.0]
    assert atlas.tuning.flat(0) is (None if group == "D1" else False)


def test_a_wide_peak_is_no_repeat():
    # C falls to 0.85 at 180 degrees: within the tolerance of 0.2 nowhere else but around 0, yet high everywhere.
    nearly = shape("D16", {0: 1.0, 1: math.sqrt(0.11)})
    atlas = analyze(dictionary("D16", [nearly]), tolerance=0.18)
    assert atlas.autocorrelation[0, 8] < 0.82
    assert atlas.autocorrelation[0, 5] > 0.82  # 112.5 degrees, and so at both thirds of a turn
    assert atlas.tuning.period.tolist() == [360.0]


def test_chirality_and_partners():
    # Turned and mirrored by angles between elements (D8: 45 degrees); one without a partner, one with a mirror.
    other = {1: 1.0, 2: 1j, 3: -1.0, 4: 0.5}
    latents = [
        shape("D8", CHIRAL, slots=3),
        shape("D8", CHIRAL, turn=67.0, slots=3),
        shape("D8", CHIRAL, mirrored=True, turn=100.0, slots=3),
        shape("D8", other, slot=1, slots=3),
        shape("D8", {1: 1.0, 2: 1.0}, slot=2, slots=3),
        torch.zeros(16, 48),
    ]
    atlas = analyze(dictionary("D8", latents), tolerance=0.15)
    tuning = atlas.tuning
    assert [tuning.chirality(i) for i in range(6)] == ["partner", "partner", "partner", "no partner", "achiral", None]
    partner = tuning.mirrors.partner.tolist()
    assert partner[2] in (0, 1)
    assert partner[:2] + partner[3:] == [2, 2, -1, -1, -1]
    assert tuning.mirrors.similarity[:3].min() > 0.99
    # The partner is the shape mirrored, then turned by 100 degrees.
    assert float(tuning.mirrors.turn[0]) == pytest.approx(100.0, abs=1.0)
    assert tuning.mirrors.pose[:2].tolist() == [8 + 2, 8 + 4]
    # Mirrored about x → −x a shape at 67 degrees is at −67: on by 167 degrees.
    assert float(tuning.mirrors.turn[1]) == pytest.approx(167.0, abs=1.0)
    assert tuning.mirrors.own[4] > 0.99
    c = np.array(list(CHIRAL.values()))
    k = np.array(list(CHIRAL))[:, None]
    mirrored = (c.conj() ** 2)[:, None] * np.exp(1j * k * np.linspace(0, 2 * np.pi, 10001))
    assert float(tuning.mirrors.own[0]) == pytest.approx(mirrored.sum(0).real.max() / 3, abs=0.01)
    row = atlas.table()[3]
    assert (row["chirality"], row["mirror_partner"], row["mirror_similarity"]) == ("no partner", None, None)


def test_a_turned_copy_of_a_nearly_mirrored_latent_is_no_partner():
    nearly = {1: 1.0, 2: 1.0, 3: np.exp(0.9j)}
    latents = [shape("D16", nearly), shape("D16", nearly, turn=90.0)]
    atlas = analyze(dictionary("D16", latents), tolerance=0.1)
    mirrored = float(atlas.tuning.mirrors.own[0])
    assert atlas.families.threshold <= mirrored < 0.9
    assert [atlas.tuning.chirality(i) for i in (0, 1)] == ["no partner", "no partner"]
    tolerant = analyze(dictionary("D16", latents), tolerance=1 - mirrored + 0.01)
    assert [tolerant.tuning.chirality(i) for i in (0, 1)] == ["achiral", "achiral"]


def test_a_mirror_between_elements_makes_a_latent_achiral():
    # Under D8 the axes are 22.5 degrees apart, and this one's lies midway.
    made = dictionary("D8", [shape("D8", {1: 0.6, 3: 1.0}, turn=11.25)])
    atlas = analyze(made, tolerance=0.15)
    assert atlas.autocorrelation[0, 8:].max() < 0.75
    assert atlas.tuning.chirality(0) == "achiral"
    assert atlas.tuning.mirrors.own[0] > 0.99


def test_the_turn_of_a_partner_is_within_one_period():
    c = {1: 0.1, 2: 1.0, 4: 1.0, 6: 1j}
    latents = [shape("D16", c), shape("D16", c, mirrored=True, turn=250.0)]
    atlas = analyze(dictionary("D16", latents), tolerance=0.15)
    assert [s.name for s in atlas.stabilizers] == ["C2", "C2"]
    assert float(atlas.tuning.mirrors.turn[0]) == pytest.approx(70.0, abs=1.0)
    assert int(atlas.tuning.mirrors.pose[0]) == 16 + 3


def test_a_partner_between_elements_of_a_coarse_group_is_found():
    # At 45 degree steps the sampled cosine of harmonics up to 3, turned half a step off, stays below the threshold.
    sharp = {1: 0.4, 3: 1.0, 2: 0.6j}
    latents = [shape("D8", sharp), shape("D8", sharp, mirrored=True, turn=22.5)]
    made = dictionary("D8", latents)
    W = made.W_dec.detach()
    sampled = max(float((W[1] * translate(W[0], made.group, s)).sum()) for s in range(8, 16))
    assert sampled < 0.75
    atlas = analyze(made, tolerance=0.1)
    assert atlas.tuning.mirrors.partner.tolist() == [1, 0]
    assert atlas.tuning.mirrors.similarity.min() > 0.99
    assert float(atlas.tuning.mirrors.turn[0]) == pytest.approx(22.5, abs=1.0)


def test_the_best_partner_wins_in_any_order_and_any_blocks(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    latents, expected = [], {}
    for slot in range(4):
        c = {k: complex(*torch.randn(2, generator=generator).tolist()) for k in (1, 2, 3)}
        poor = {k: v * (1 + 0.6 * (-1) ** k) for k, v in c.items()}
        own = shape("D8", c, slot=slot, slots=4)
        copies = [shape("D8", x, slot=slot, slots=4, mirrored=True, turn=30.0) for x in (c, poor)]
        order = [0, 1] if slot in (0, 3) else [1, 0]
        expected[len(latents)] = len(latents) + 1 + order.index(0)
        latents += [own, copies[order[0]], copies[order[1]]]
    crosscoder = dictionary("D8", latents)
    whole = analyze(crosscoder, tolerance=0.1).tuning.mirrors
    assert {latent: int(whole.partner[latent]) for latent in expected} == expected
    monkeypatch.setattr("groupcc.analysis.families.neighbours.MAX_PAIR_NUMBERS", 16 * 4)
    monkeypatch.setattr("groupcc.groups.autocorrelation.MAX_BLOCK_NUMBERS", 16 * 64)
    blocked = analyze(crosscoder, tolerance=0.1).tuning.mirrors
    assert torch.equal(whole.partner, blocked.partner)
    torch.testing.assert_close(whole.turn, blocked.turn)


def test_cyclic_groups_say_nothing_of_mirrors():
    atlas = analyze(dictionary("C8", [shape("C8", CHIRAL), shape("C8", {0: 1.0})]))
    assert atlas.tuning.chirality(0) is atlas.tuning.chirality(1) is None
    assert atlas.tuning.mirrors.own.isnan().all()
    assert atlas.tuning.period.tolist() == [360.0, 0.0]
    assert atlas.table()[0]["chirality"] is atlas.table()[0]["mirror_partner"] is None


@pytest.mark.parametrize(
    ("poses", "expected"),
    [("all", "partner"), ("rotations", "no partner"), ("reflections", "no partner"), ("few", "unclear")],
)
def test_chirality_of_a_tied_latent_is_read_from_the_poses_that_fire(poses, expected):
    d = shape("D8", CHIRAL)
    crosscoder = dictionary("D8", [d], tied=True, k=1)
    chosen = {"all": range(16), "rotations": range(8), "reflections": range(8, 16), "few": range(3)}[poses]
    each = 1 if poses == "few" else 20
    orbits = torch.stack([translate(d, crosscoder.group, h) for h in chosen for _ in range(each)])
    atlas = analyze(crosscoder, orbits, tolerance=0.15)
    assert atlas.tuning.chirality(0) == expected
    share = {"all": 0.5, "rotations": 0.0, "reflections": 1.0, "few": 0.0}[poses]
    assert float(atlas.tuning.mirrors.mirrored_share[0]) == pytest.approx(share)
    assert atlas.tuning.mirrors.partner.tolist() == [0]
    assert analyze(crosscoder, tolerance=0.15).tuning.chirality(0) == "unclear"


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
@pytest.mark.parametrize("tied", [False, True, "residual"])
def test_responses_are_those_of_the_encoder(encoder, tied):
    generator = torch.Generator().manual_seed(3)
    config = CrosscoderConfig(group="D6", d_in=5, n_latents=7, k=3, encoder=encoder, tied=tied)
    crosscoder = GroupCrosscoder(config, seed=1).eval()
    with torch.no_grad():
        for name, parameter in crosscoder.named_parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
            assert parameter.abs().max() > 0, name
    acts = torch.randn(20, 12, 5, generator=generator)
    indices = torch.randint(20, (7, 4), generator=generator)
    indices[2, 1:], indices[5] = -1, -1
    poses = torch.randint(12, (7, 4), generator=generator) if tied else None
    found = measure_responses(crosscoder, as_orbits(acts, 12, 5), TopExamples(indices, torch.ones(7, 4), poses))
    assert found.shape == (7, 6)
    assert found[5].isnan().all()
    for r in range(6):
        with torch.no_grad():
            pre = crosscoder.pre_acts(translate(acts, crosscoder.group, r))
        for latent in (0, 1, 2, 3, 4, 6):
            shown = indices[latent] >= 0
            rows = indices[latent][shown]
            value = pre[rows, latent, poses[latent][shown]] if tied else pre[rows, latent]
            assert float(found[latent, r]) == pytest.approx(float(value.relu().mean()), rel=1e-4, abs=1e-5)


def test_measured_width_of_a_known_latent():
    d = shape("D16", {1: 1.0, 2: 1.0})
    crosscoder = dictionary("D16", [d, shape("D16", {0: 1.0})])
    orbits = torch.stack([2 * d, shape("D16", {0: 1.0})])
    tuning = analyze(crosscoder, orbits, tolerance=0.15).tuning
    # ReLU cuts what is below 0: half height is half of the peak, where the curve itself reads a half.
    theta = np.linspace(0, 180, 18001)
    rectified = np.maximum(0.5 * np.cos(np.radians(theta)) + 0.5 * np.cos(np.radians(2 * theta)), 0)
    assert float(tuning.response_width[0]) == pytest.approx(theta[np.argmax(rectified <= 0.5)], rel=0.05)
    assert float(tuning.response_depth[0]) == pytest.approx(1.0, abs=1e-4)
    assert float(tuning.response_depth[1]) == pytest.approx(0.0, abs=1e-4)
    assert tuning.response_width[1].isnan()
    assert float(tuning.response[0, 0]) == pytest.approx(float(2 * d.norm()), rel=1e-4)


def test_files_and_table(tmp_path):
    d = shape("D8", CHIRAL)
    orbits = torch.stack([d, translate(d, make_group("D8"), 3)])
    crosscoder = dictionary("D8", [d, shape("D8", {1: 1.0, 2: 1.0}), torch.zeros(16, 16)])
    for given in (None, orbits):
        atlas = analyze(crosscoder, given)
        read = Atlas.load(atlas.save(tmp_path / "atlas"))
        assert read.table() == atlas.table()
        for name, tensor in atlas.tuning.tensors().items():
            assert torch.equal(read.tuning.tensors()[name].nan_to_num(7.5), tensor.nan_to_num(7.5)), name
        assert ("response_width_degrees" in atlas.table()[0]) == (given is not None)
    dead = analyze(crosscoder).table()[2]
    told = ("period_degrees", "tuning", "tuning_depth", "tuning_width_degrees", "chirality", "mirror_score")
    assert [dead[name] for name in told] == [None] * 6
