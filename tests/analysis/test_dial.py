"""The orientation dial: poses counted, folded by the stabilizer, and gaps found no more often than stated."""

import itertools
import math

import numpy as np
import pytest
import torch

from groupcc.analysis import GAP_ERROR, GAP_RATE, Atlas, analyze, find_families, measure_activity, read_dial
from groupcc.analysis.families.dial import dispersion
from groupcc.errors import ArgumentError
from groupcc.groups import group as make_group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.models.forms.tied import translates
from groupcc.zoo.planted import planted


def tied_crosscoder(truth, base=None, **settings):
    """The planted dictionary itself, tied, whose encoder reads off its own latents."""
    base = truth.base if base is None else base
    made = GroupCrosscoder(
        CrosscoderConfig(
            group=truth.group.name, d_in=base.shape[2], n_latents=len(base), encoder="orbit", tied=True,
            **({"k": 1, "pose_distance": 0.0} | settings),
        )
    )  # fmt: skip
    with torch.no_grad():
        made.W_dec.copy_(base)
        made.W_enc.copy_(base)
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made.eval()


def fold(counts, group, mask):
    """Counts by coset, the slow way: {the smallest element of hH: firings}."""
    elements = np.flatnonzero(mask)
    found = {}
    for h in range(group.order):
        smallest = int(group.cayley[h, elements].min())
        found[smallest] = found.get(smallest, 0) + int(counts[h])
    return found


@pytest.mark.parametrize("name", ["D3", "D4", "C5", "C6", "D1", "C1", "C2", "D2"])
@pytest.mark.parametrize("batch_size", [1024, 7])
def test_poses_are_counted(name, batch_size):
    """Each example is one atom; it is counted in the coset of its pose, reflections too."""
    truth = planted(name, 40, 3, stabilizers=["C1"], seed=0)
    G = truth.group.order
    made = tied_crosscoder(truth)
    generator = torch.Generator().manual_seed(1)
    which = torch.randint(0, 3, (60,), generator=generator)
    pose = torch.randint(0, G, (60,), generator=generator)
    acts = translates(truth.base, truth.group)[which * G + pose]
    activity = measure_activity(made, acts, batch_size=batch_size)
    expected = torch.zeros(3, G, dtype=torch.int64)
    expected.index_put_((which, pose), torch.ones(60, dtype=torch.int64), accumulate=True)
    assert activity.pose_counts.dtype == torch.int64
    assert torch.equal(activity.pose_counts, expected)
    atlas = analyze(made, acts, batch_size=batch_size)
    top = atlas.top_examples
    shown = top.indices >= 0
    assert torch.equal(top.poses[shown], pose[top.indices[shown]])
    assert torch.equal(atlas.pose_counts, expected)
    for latent in range(3):
        rings = atlas.dial(latent).rings
        assert np.concatenate([ring.counts for ring in rings]).tolist() == expected[latent].tolist()


def test_equal_poses_are_one():
    """Every stabilizer of D4: the dial's poses are the cosets, whichever equal pose the encoder reports."""
    group = make_group("D4")
    counts = np.random.default_rng(0).integers(0, 50, 8)
    for subgroup in group.subgroups():
        dial = read_dial(counts, group, subgroup.mask)
        expected = fold(counts, group, subgroup.mask)
        assert dial.n_poses == len(expected) == 8 // subgroup.order
        mirror = (subgroup.mask & group.reflections).any()
        assert (dial.mirrored is None) == mirror
        for ring, start in zip(dial.rings, (0, 4), strict=False):
            for i, count in enumerate(ring.counts.tolist()):
                coset = group.cayley[start + i, subgroup.elements]
                assert count == expected[int(coset.min())]
        assert dial.firings == counts.sum()
        assert dial.turned.step == 90


def test_a_symmetric_latent_has_no_gaps_from_ties():
    """A line's equal poses tie; the encoder reports the first of them, and the dial is even all the same."""
    truth = planted("D8", 40, 1, stabilizers=["D2"], seed=0)
    made = tied_crosscoder(truth)
    acts = translates(truth.base, truth.group).repeat(20, 1, 1)
    atlas = analyze(made, acts)
    assert int((atlas.pose_counts == 0).sum()) > 8
    dial = atlas.dial(0)
    assert dial.turned.counts.tolist() == [80] * 4
    assert dial.mirrored is None
    assert (dial.kind, dial.p_even) == ("even", 1.0)


def test_a_real_gap_is_found():
    """A curve that never lies between 90 and 157.5 degrees, and lies a little rarely at 180."""
    group = make_group("D16")
    mask = group.subgroup_named("D1@90°").mask
    counts = np.zeros(32, dtype=np.int64)
    counts[:16] = 60
    counts[4:8] = [2, 0, 0, 1]
    counts[8] = 40
    counts[30] = 3  # mirrored, and so one of the turns
    dial = read_dial(counts, group, mask)
    assert dial.kind == "gaps"
    assert dial.turned.runs == [(4, 4)]
    assert dial.turned.largest_gap == 90
    assert dial.turned.covered == 0.75
    assert dial.turned.counts.sum() == counts.sum()
    around = read_dial(np.roll(counts[:16], 10), make_group("C16"), np.arange(16) == 0)
    assert around.turned.runs == [(14, 4)]  # past 0
    assert around.turned.gaps.tolist() == [True] * 2 + [False] * 12 + [True] * 2


def test_turned_and_mirrored_poses_have_gaps_of_their_own():
    """A chiral latent whose mirror image never occurs, and which itself misses two neighbours of eight."""
    group = make_group("D8")
    counts = np.array([60, 60, 0, 0, 60, 60, 60, 60] + [0] * 8)
    dial = read_dial(counts, group, np.arange(16) == 0)
    assert (dial.turned.largest_gap, dial.turned.covered) == (90, 0.75)
    assert (dial.mirrored.largest_gap, dial.mirrored.covered) == (360, 0)
    assert dial.mirrored.runs == [(0, 8)]
    other = read_dial(np.roll(counts, 8), group, np.arange(16) == 0)
    assert (other.turned.largest_gap, other.mirrored.largest_gap) == (360, 90)


@pytest.mark.parametrize(("name", "firings"), [("C16", 400), ("D8", 150), ("D3", 2000), ("C2", 60), ("D1", 60)])
def test_even_firing_shows_gaps_and_unevenness_no_more_often_than_stated(name, firings):
    group = make_group(name)
    trivial = np.arange(group.order) == 0
    rng = np.random.default_rng(0)
    draws = rng.multinomial(firings, np.full(group.order, 1 / group.order), size=2000)
    kinds = [read_dial(counts, group, trivial).kind for counts in draws]
    # Two thousand draws at the stated 1 in 100 have a standard deviation of 4.4.
    assert kinds.count("gaps") + kinds.count("few") <= 20 + 3 * 4.5
    assert kinds.count("uneven") <= 20 + 4 * 4.5
    # Where the true rate of half the poses is just what a gap may not exceed, the error is as stated still.
    rates = np.where(np.arange(group.order) < group.order / 2, GAP_RATE, 2 - GAP_RATE) / group.order
    found = [read_dial(counts, group, trivial).kind for counts in rng.multinomial(firings, rates, size=1000)]
    assert found.count("gaps") <= 1000 * GAP_ERROR + 3 * math.sqrt(1000 * GAP_ERROR)


@pytest.mark.parametrize("shift", range(8))
def test_an_empty_part_of_a_run_that_chance_explains_is_a_gap(shift):
    """Two empty poses beside three that are low: the five are no run too seldom for chance, the two are."""
    counts = np.roll([0, 0, 5, 5, 5, 59, 59, 59], shift)
    dial = read_dial(counts, make_group("C8"), np.arange(8) == 0)
    assert dial.visible_gap == 90
    assert dial.kind == "gaps"
    assert dial.turned.gaps.tolist() == (counts == 0).tolist()


@pytest.mark.parametrize("name", ["C8", "D6", "C2", "D1", "D2"])
def test_gaps_are_those_of_every_run_looked_at_by_itself(name):
    """Against the rule written out: each start and length in turn, the Poisson tail summed term by term."""
    group = make_group(name)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(60):
        counts = rng.poisson(rng.choice([0.5, 4, 12, 90], group.order))
        counts[0] += 1  # no rate is 0
        dial = read_dial(counts, group, np.arange(group.order) == 0)
        mean, m, rings = counts.mean(), group.n, group.order // group.n
        tests = rings * m * (m - 1) + (rings if rings > 1 else 0)
        expected = np.zeros((rings, m), dtype=bool)
        for ring, first, length in itertools.product(range(rings), range(m), range(1, m + 1)):
            run = (first + np.arange(length)) % m
            held = counts.reshape(rings, m)[ring, run]
            rate = GAP_RATE * mean * length
            tail = sum(math.exp(k * math.log(rate) - rate - math.lgamma(k + 1)) for k in range(int(held.sum()) + 1))
            expected[ring, run] |= bool((held < GAP_RATE * mean).all() and tail <= GAP_ERROR / tests)
        found += int(expected.any())
        assert np.array_equal(np.stack([r.gaps for r in dial.rings]), expected)
    assert 0 < found < 60


def test_unevenness_is_not_a_gap():
    """Ten thousand firings show a rate of six tenths beyond doubt, and it is no gap."""
    group = make_group("C12")
    counts = np.array([1000] * 6 + [600] * 6)
    dial = read_dial(counts, group, np.arange(12) == 0)
    assert dial.kind == "uneven"
    assert dial.p_even < 1e-6
    assert dial.turned.covered == 1
    assert read_dial(counts, group, np.arange(12) == 0, rate=0.9).kind == "gaps"


def test_chi_square_is_that_of_the_tables():
    """X² = 7.815 with 3 degrees of freedom has probability 0.05."""
    off = math.sqrt(7.814728 * 10**8 / 2)
    counts = (10**8 + np.array([off, -off, 0, 0])).round().astype(np.int64)
    assert read_dial(counts, make_group("C4"), np.arange(4) == 0).p_even == pytest.approx(0.05, abs=1e-4)


def test_smallest_visible_gap():
    """An empty run as long as is said is a gap; one pose less is none."""
    group = make_group("C24")
    trivial = np.arange(24) == 0
    counts = np.full(24, 20)
    width = round(read_dial(counts, group, trivial).visible_gap / 15)
    assert 1 < width < 23
    for missing, gap in ((width, True), (width - 1, False)):
        # The firings of the missing poses go elsewhere, so the mean stays.
        lost = np.where(np.arange(24) < missing, 0, counts)
        lost[23] += 20 * missing
        assert (read_dial(lost, group, trivial).kind == "gaps") == gap
    assert read_dial(np.ones(24, dtype=np.int64), group, trivial).kind == "few"
    assert read_dial(np.ones(24, dtype=np.int64), group, trivial).visible_gap is None
    # Of two poses both can't be missing.
    assert read_dial(np.array([15, 15]), make_group("C2"), np.arange(2) == 0).kind == "few"
    assert read_dial(np.array([22, 22]), make_group("C2"), np.arange(2) == 0).visible_gap == 180


def test_nothing_to_compare():
    for name in ("C1", "D8"):
        group = make_group(name)
        dial = read_dial(np.full(group.order, 100), group, np.ones(group.order, dtype=bool))
        assert (dial.kind, dial.n_poses, dial.p_even, dial.turned.covered) == ("one", 1, 1.0, 1.0)
    assert read_dial(np.zeros(4, dtype=np.int64), make_group("C4"), np.arange(4) == 0).kind == "few"
    for wrong in ({"rate": 0}, {"rate": 1}, {"error": 0}, {"error": 1.5}):
        with pytest.raises(ArgumentError, match=next(iter(wrong))):
            read_dial(np.ones(4, dtype=np.int64), make_group("C4"), np.arange(4) == 0, **wrong)


def atlas_with_a_duplicate(orbits=True):
    """Five shapes of D4, the second of them learned twice (turned by 90 degrees and mirrored), and a dead latent."""
    truth = planted("D4", 64, 5, stabilizers=["C1", "D1", "C2", "D2", "D4"], seed=0)
    group = truth.group
    base = torch.cat([truth.base, truth.base[1:2, group.right_translation[3].tolist()], torch.zeros(1, 8, 64)])
    acts = translates(truth.base, group).repeat(3, 1, 1) + 0.5 * translates(base[:1], group).repeat(15, 1, 1)
    made = tied_crosscoder(truth, base, k=3)
    return made, analyze(made, acts if orbits else None)


def test_families_of_a_tied_crosscoder_are_given():
    made, atlas = atlas_with_a_duplicate(orbits=False)
    assert atlas.families.atoms.tolist() == [8, 4, 4, 2, 1, 4, 0]
    assert atlas.families.references == [0, 1, 2, 5, 3, 4]
    assert atlas.families.sizes == [8, 4, 4, 4, 2, 1]
    assert atlas.families.labels.tolist() == [0, 1, 2, 4, 5, 3, -1]
    assert atlas.families.members(4) == [3]
    # The search says which base latents have one shape, told apart from the poses that are given.
    searched = find_families(made.W_dec.detach(), atlas.group, dead=atlas.dead, stabilizers=atlas.stabilizers)
    assert torch.equal(atlas.duplicates.labels, searched.labels)
    assert atlas.duplicates.sizes == [2, 1, 1, 1, 1]
    assert atlas.duplicates.labels[1] == atlas.duplicates.labels[5]
    rows = atlas.table()
    assert [row["duplicate_of"] for row in rows] == [None, None, None, None, None, 1, None]
    assert rows[5]["duplicate_similarity"] == pytest.approx(1, abs=1e-4)
    coset = atlas.group.cayley[3, np.flatnonzero(atlas.stabilizers[1].mask)]
    assert rows[5]["duplicate_pose"] in [atlas.group.element_names[h] for h in coset]
    assert [row["atoms"] for row in rows] == [row["family_size"] or 0 for row in rows] == [8, 4, 4, 2, 1, 4, 0]
    assert rows[0]["firings"] is rows[0]["dial"] is rows[0]["covered"] is None
    assert atlas.pose_counts is atlas.dial(0) is None


def test_the_table_says_what_the_dial_says():
    _, atlas = atlas_with_a_duplicate()
    atlas.pose_counts[0] = torch.tensor([90, 90, 0, 90, 0, 0, 0, 0])
    atlas.pose_counts[1] = torch.tensor([1, 0, 0, 0, 0, 0, 0, 0])
    row = atlas.table()[0]
    assert (row["firings"], row["dial"]) == (270, "gaps")
    assert (row["covered"], row["largest_gap_degrees"]) == (0.75, 90)
    assert row["visible_gap_degrees"] == 90
    assert (row["covered_mirrored"], row["largest_gap_degrees_mirrored"]) == (0, 360)
    few = atlas.table()[1]
    assert (few["firings"], few["dial"], few["covered"], few["largest_gap_degrees"]) == (1, "few", None, None)
    line = atlas.table()[3]
    assert (line["covered_mirrored"], line["largest_gap_degrees_mirrored"]) == (None, None)
    assert atlas.dial(6) is atlas.table()[6]["dial"] is None


@pytest.mark.parametrize("orbits", [True, False])
def test_save_and_load(tmp_path, orbits):
    _, atlas = atlas_with_a_duplicate(orbits)
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert again.table() == atlas.table()
    assert torch.equal(again.families.atoms, atlas.families.atoms)
    assert again.families.references == atlas.families.references
    for name in ("labels", "poses", "turns", "mirrored", "similarity_to_reference"):
        assert torch.equal(getattr(again.duplicates, name), getattr(atlas.duplicates, name))
        assert torch.equal(getattr(again.families, name), getattr(atlas.families, name))
    assert again.duplicates.references == atlas.duplicates.references
    if orbits:
        assert torch.equal(again.pose_counts, atlas.pose_counts)
        assert torch.equal(again.top_examples.poses, atlas.top_examples.poses)
    else:
        assert again.pose_counts is None


def test_an_untied_atlas_has_none_of_it(tmp_path):
    made, _ = atlas_with_a_duplicate(orbits=False)
    untied = made.untie()
    acts = torch.randn(20, 8, 64, generator=torch.Generator().manual_seed(0))
    atlas = analyze(untied, acts)
    assert atlas.duplicates is atlas.pose_counts is atlas.families.atoms is atlas.dial(0) is None
    assert not {"atoms", "dial", "duplicate_pose"} & set(atlas.table()[0])
    assert atlas.top_examples.poses is None
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    assert again.duplicates is again.top_examples.poses is None


def test_a_latent_in_two_poses_of_one_example_counts_once_in_its_frequency():
    truth = planted("D8", 40, 2, stabilizers=["C1"], seed=0)
    atoms = translates(truth.base, truth.group)
    acts = (2 * atoms[0] + 1.5 * atoms[3])[None].repeat(4, 1, 1)
    activity = measure_activity(tied_crosscoder(truth, pose="nms", k=2), acts)
    assert activity.frequency.tolist() == [1, 0]
    assert activity.pose_counts[0].nonzero().flatten().tolist() == [0, 3]
    assert int(activity.pose_counts.sum()) == 8
    assert activity.metrics["l0"] == 2


def test_dispersion_by_hand():
    G = make_group("C2")
    alone = np.array([True, False])
    assert dispersion(np.array([[4, 0], [0, 4]]), G, alone) == pytest.approx(8)
    assert dispersion(np.array([[4, 4], [1, 1]]), G, alone) == 1, "no less than 1"
    assert dispersion(np.array([[4, 4]]), G, alone) == 1, "one part"
    assert dispersion(np.array([[4, 0], [9, 0]]), G, alone) == 1, "one pose"


def firings(group, clusters, size, poses, seed):
    """`clusters` of `size` firings, each in one of the poses and in one of 20 parts: (counts, parts)."""
    generator = np.random.default_rng(seed)
    parts = np.zeros((20, group.order), dtype=np.int64)
    np.add.at(parts, (generator.integers(0, 20, clusters), generator.choice(poses, clusters)), size)
    return parts.sum(0), parts


def test_clusters_of_firings_make_no_gaps():
    """1,000 even firings in clusters of 20: taken as independent, most dials have a false gap; 1 % is promised."""
    G = make_group("D8")
    alone = np.arange(16) == 0
    drawn = [firings(G, 50, 20, np.arange(16), seed) for seed in range(200)]
    false = np.mean([read_dial(counts, G, alone, parts).kind == "gaps" for counts, parts in drawn])
    naive = np.mean([read_dial(counts, G, alone).kind == "gaps" for counts, _ in drawn])
    assert naive > 0.4
    assert false <= 0.02


def test_a_real_gap_is_still_seen_in_clusters():
    G = make_group("D8")
    alone = np.arange(16) == 0
    counts, parts = firings(G, 2000, 5, np.r_[0:8, 12:16], seed=0)
    dial = read_dial(counts, G, alone, parts)
    assert dial.kind == "gaps"
    assert dial.mirrored.gaps.tolist() == [True] * 4 + [False] * 4


def test_independent_firings_have_a_dispersion_of_one():
    G = make_group("D8")
    alone = np.arange(16) == 0
    phi = [dispersion(firings(G, 3000, 1, np.arange(16), seed)[1], G, alone) for seed in range(20)]
    assert np.mean(phi) < 1.1
    fivefold = [dispersion(firings(G, 3000, 5, np.arange(16), seed)[1], G, alone) for seed in range(20)]
    assert np.mean(fivefold) == pytest.approx(5, rel=0.1)
