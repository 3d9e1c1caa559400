"""The scripts in benchmarks/ that know the truth run at sizes that mean nothing, and score what they should."""

import argparse
import dataclasses
import math
import re

import pytest
import torch
from sklearn.metrics import adjusted_rand_score

import groupcc
from groupcc.data.splits import split_by_image
from groupcc.zoo import equivariant_net
from helpers.dictionaries import atlas_of, with_spares


def test_against_sae(script, capsys):
    """Every side has a row of figures, and its atoms resemble the planted ones, as chance ones (0.5 here) would not."""
    bench = script("against_sae")
    sizes = "--group C4 --d-in 8 --planted 2 --n-active 1 --samples 2000 --latents 16 --k 2 --steps 40 --batch-size 64"
    bench.main([*sizes.split(), "--case", "clean", "--tied", "--dead-after", "500", "--seeds", "0", "--threads", "1"])
    head, _, *rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert head == ["clean: C4, 6 atoms in 8 channels, seeds 0", *bench.COLUMNS]
    assert [row[0] for row in rows[:4]] == ["crosscoder", "crosscoder, tied", "SAE, upright", "SAE, augmented"]
    for row in rows[:4]:
        cells = [cell.split()[0] for cell in row[1:]]
        found = dict(zip(bench.COLUMNS, (math.nan if cell == "none" else float(cell) for cell in cells), strict=True))
        assert 0 <= found["recovered"] <= 1
        assert 0.7 < found["MMCS"] <= 1
        assert all(-1 <= found[name] <= 1 for name in bench.COLUMNS if name.startswith(("ARI", "NMI")))
        assert 1 <= found["used"] <= 16
    told = [row[0].split(":")[0] for row in rows if row[0].startswith("ARI")]
    assert told == ["ARI, atoms", "ARI, both", "ARI, used", "ARI, live"]


def test_against_sae_on_the_bank(script, capsys, tmp_path):
    """Every side trains on the kept orbits, and what is scored is held out."""
    bench = script("against_sae")
    sizes = "--case bank --group C4 --images 10 --positions 8 --latents 24 --k 3 --steps 3 --batch-size 16 --seeds 3"
    arguments = [*sizes.split(), "--threads", "1", "--orbits", str(tmp_path)]
    bench.main(arguments)
    first = capsys.readouterr().out
    assert first.startswith("| bank: C4, 27 atoms in 18 channels, seeds 3 |")
    kept = [path.name for path in tmp_path.iterdir()]
    assert kept == ["C4-3"]
    args = bench.parse(arguments)
    asked = {name: value for name, value in vars(args).items() if value is not None}
    args = argparse.Namespace(**bench.CASES["bank"] | asked, case="bank")
    _, orbits, held_out = bench.problem(3, args)
    assert 0 < len(held_out) < len(orbits)
    training, _ = split_by_image(orbits, args.held_out, 3)
    assert not set(training.tolist()) & set(held_out.indices.tolist())


def test_against_sae_scores_what_it_should(script):
    """The atoms as a dictionary score all; a family cut off, a latent that fires no more, and a spare one count."""
    bench = script("against_sae")
    truth, crosscoder = with_spares()
    acts, _ = truth.sample(400, n_active=2, seed=5)
    found = bench.score(crosscoder, truth, acts)
    A = len(truth.atoms)
    full = ("recovered", "stabilizers", "ARI, atoms", "ARI, both", "ARI, used", "NMI, atoms", "NMI, used")
    assert {found[name] for name in full} == {1.0}
    assert (found["used"], found["spare"]) == (A, 3)
    assert 0.9 < found["ARI, live"] < 1.0  # spare ones are alone
    # Two that fire no more, and one so unlike its atom that it is of its family, but matches it no longer.
    first, second = 0, int((truth.atom_base == 1).nonzero()[0])
    third = int((truth.atom_base == truth.atom_base.mode().values).nonzero()[-1])
    other = torch.randn(truth.atoms[third].shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        crosscoder.b_enc[[first, second]] = -1e9
        crosscoder.W_dec[third] += 0.5 * other / other.norm()
    without = bench.score(crosscoder, truth, acts)
    assert without["used"] == A - 2
    assert without["recovered"] == pytest.approx(1 - 1 / A)
    assert without["ARI, used"] == 1.0
    alone = truth.atom_base.clone()
    alone[[first, second, third]] = 100 + torch.arange(3)
    assert without["ARI, atoms"] == pytest.approx(adjusted_rand_score(truth.atom_base, alone))
    # The unlike one stands beside the atom that nothing matches, in its family.
    expected, given = (torch.cat([part, truth.atom_base[[third]]]) for part in (truth.atom_base, alone))
    assert without["ARI, both"] == pytest.approx(adjusted_rand_score(expected, given))
    with torch.no_grad():
        crosscoder.W_dec[first] = other
    assert bench.score(crosscoder, truth, acts)["recovered"] == pytest.approx(1 - 2 / A)


def test_known_bank_leaves_spare_latents_out(script):
    known_bank = script("known_bank")
    truth, crosscoder = with_spares()
    acts, _ = truth.sample(400, n_active=2, seed=5)
    assert known_bank.used_latents(groupcc.analyze(crosscoder, acts)) == list(range(len(truth.atoms)))
    assert known_bank.used_latents(groupcc.analyze(crosscoder)) == list(range(len(crosscoder.W_dec)))


def test_margins(script):
    """A lead counts where it exceeds the larger range, and the best autoencoder is the one to beat."""
    bench = script("against_sae")

    def rows(*values):
        return [{name: value for name in bench.COLUMNS} for value in values]

    told = bench.margins({"crosscoder": rows(0.9, 1.0), "SAE, a": rows(0.1, 0.1), "SAE, b": rows(0.8, 0.82)})
    assert told[0] == "ARI, atoms: lead +0.140, spread 0.100: crosscoder beats the best SAE"
    told = bench.margins({"crosscoder": rows(0.8, 1.0), "SAE, a": rows(0.79, 0.75)})
    assert told[0].endswith("lead +0.130, spread 0.200: crosscoder level with the best SAE")
    told = bench.margins({"crosscoder": rows(0.5, 0.5), "SAE, a": rows(0.7, 0.8)})
    assert told[1].endswith("crosscoder is beaten by the best SAE")


@pytest.mark.parametrize("pose", [[], ["--pose", "nms"]], ids=["untied", "tied"])
def test_known_bank(script, capsys, pose, tmp_path):
    known_bank = script("known_bank")
    sizes = "--group C4 --images 6 --positions 8 --input-size 65 --latents 24 --k 3 --steps 5 --batch-size 16"
    controls = ["filters"] if pose else ["filters", "net"]
    rest = ["--seeds", "3", "--threads", str(torch.get_num_threads()), "--orbits", str(tmp_path)]
    known_bank.main([*sizes.split(), *rest, *pose, "--controls", *controls])
    assert {path.name for path in tmp_path.iterdir()} == {"C4-3", *(f"C4-{control}-3" for control in controls)}
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:20].strip(): line[20:].split() for line in lines[2:13]}
    assert list(rows) == [*known_bank.SHAPES, "all"]
    assert int(rows["all"][0]) == sum(int(row[0]) for kind, row in rows.items() if kind != "all")
    assert lines[13].startswith("family ARI")
    assert [line.split(":")[0] for line in lines[14:-1]] == [f"control, {control}" for control in controls]
    for line in lines[14:-1]:
        live, invariant = (int(word) for word in re.findall(r"(\d+) live latents, (\d+) invariant", line)[0])
        assert 0 <= invariant <= live <= 24


def test_known_bank_scores_what_it_should(script):
    """The truth as a dictionary scores all; with a wrong stabilizer, and two families in one, exactly so much less."""
    known_bank = script("known_bank")
    truth = groupcc.zoo.known_bank("D4").truth
    A, _, D = truth.atoms.shape
    config = groupcc.CrosscoderConfig(group="D4", d_in=D, n_latents=A + 1, k=3, encoder="orbit")
    crosscoder = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        unlike = torch.randn(1, 8, D, generator=torch.Generator().manual_seed(0))
        crosscoder.W_dec.copy_(torch.cat([2 * truth.atoms.flip(0), unlike]))
    trained = known_bank.Trained(crosscoder, groupcc.analyze(crosscoder), 0.0, 0.0)
    perfect = known_bank.score(trained, truth)
    assert [row.kind for row in perfect.rows] == [*truth.kinds, "all"]
    for row in perfect.rows:
        assert (row.recovered, row.exact, row.latents) == (1.0, 1.0, row.atoms)
        assert row.mmcs == pytest.approx(1)
        assert row.families == (len(truth.kinds) if row.kind == "all" else 1)
    assert (perfect.ari, perfect.used) == (1.0, A + 1)
    assert perfect.ari_used < 1.0
    edge, curve = (truth.kinds.index(kind) for kind in ("edge", "curve"))
    shape_of = truth.atom_base.flip(0)
    circle = truth.kinds.index("circle")
    stabilizers = trained.atlas.stabilizers
    stabilizers[int((shape_of == edge).nonzero()[0])] = stabilizers[int((shape_of == circle).nonzero()[0])]
    labels = trained.atlas.families.labels
    labels[:A][shape_of == edge] = labels[:A][shape_of == curve][0]
    worse = known_bank.score(trained, truth)
    assert worse.rows[edge].exact == pytest.approx(1 - 1 / worse.rows[edge].atoms)
    assert worse.rows[-1].exact == pytest.approx(1 - 1 / A)
    assert worse.rows[-1].families == len(truth.kinds) - 1
    assert 0.5 < worse.ari < 1.0


def test_known_bank_counts_every_pose_of_a_tied_latent(script):
    known_bank = script("known_bank")
    truth = groupcc.zoo.known_bank("D4").truth
    F, _, D = truth.base.shape
    config = groupcc.CrosscoderConfig(group="D4", d_in=D, n_latents=F, k=3, encoder="orbit", tied=True)
    crosscoder = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec.copy_(truth.base)
    found = known_bank.score(known_bank.Trained(crosscoder, groupcc.analyze(crosscoder), 0.0, 0.0), truth)
    assert (found.rows[-1].recovered, found.rows[-1].latents, found.rows[-1].exact, found.ari) == (1.0, F, 1.0, 1.0)


@pytest.mark.parametrize("option", ["smooth", "superposition", "missing blocks", "missing poses"])
def test_stabilizers(script, capsys, option):
    bench = script("stabilizers")
    sizes = f"--groups C8 --seeds 0 1 --steps 12 --samples 400 --threads {torch.get_num_threads()}"
    bench.main([*sizes.split(), "--options", option])
    head, _, row = [line.strip("| \n").split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert head == list(bench.HEAD)
    assert row[:2] == ["C8", option]
    truths = [bench.plant("C8", bench.SETUPS["C8"], bench.OPTIONS[option], seed) for seed in (0, 1)]
    assert int(row[2]) == sum(len(truth.atoms) for truth in truths)
    assert [len(truth.broken) for truth in truths] == [4 if "missing" in option else 0] * 2


def test_stabilizers_scores_what_was_planted(script):
    """A crosscoder that is the truth: all exact and all told, until one stabilizer of each sort is made wrong."""
    bench = script("stabilizers")
    setup = bench.SETUPS["D4"]
    truth = bench.plant("D4", setup, bench.OPTIONS["missing blocks"], 0)
    first = [int((truth.atom_base == f).nonzero()[0]) for f in range(setup.planted)]
    config = groupcc.CrosscoderConfig(
        group="D4", d_in=setup.d_in, n_latents=setup.planted + 1, k=3, encoder="orbit", tied=True
    )
    crosscoder = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.cat([truth.atoms[first], torch.zeros(1, 8, setup.d_in)]))
    atlas = groupcc.analyze(crosscoder)
    assert bench.score(truth, crosscoder, atlas, 2.0) == bench.Score(60, 60, 12, 12, 0, 4, 4, 2.0)

    sound, dead = [f for f in range(16) if f not in truth.broken and truth.stabilizers[f].order > 1][:2]
    missed, wrong, *_ = sorted(truth.broken)
    trivial = next(s for s in atlas.stabilizers if s.order == 1)
    changed = list(atlas.stabilizers)
    changed[sound] = dataclasses.replace(trivial, broken=True)
    changed[missed] = dataclasses.replace(changed[missed], broken=False)
    changed[wrong] = dataclasses.replace(trivial, broken=True)
    atlas.dead[dead] = True
    worse = bench.score(truth, crosscoder, dataclasses.replace(atlas, stabilizers=changed), 2.0)
    assert worse == bench.Score(60, 60, 11, 10, 1, 4, 2, 2.0)


def test_stabilizers_wants_gaps_of_as_many_poses_as_are_missing(script):
    bench = script("stabilizers")
    truth = bench.plant("C8", bench.SETUPS["C8"], bench.OPTIONS["missing poses"], 0)
    f = next(f for f in truth.broken if truth.stabilizers[f].order == 1)
    config = groupcc.CrosscoderConfig(group="C8", d_in=16, n_latents=1, k=1, encoder="orbit", tied=True)
    crosscoder = groupcc.GroupCrosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec.copy_(truth.base[f : f + 1])
    atlas = groupcc.analyze(crosscoder)
    for absent, told in ((list(truth.broken[f].poses), 1), (list(truth.broken[f].poses[:-1]), 0)):
        counts = torch.full((1, 8), 200)
        counts[0, absent] = 0
        counted = dataclasses.replace(atlas, pose_counts=counts)
        assert bench.score(truth, crosscoder, counted, 0.0).told == told


def test_positive_control(script, capsys):
    """The table has a row for each stabilizer, and the harvest is of a net in poses."""
    bench = script("positive_control")
    sizes = "--layer lift --images 20 --positions 8 --input-size 65 --latents 24 --k 3 --steps 3 --batch-size 16"
    bench.main([*sizes.split(), "--threads", "1"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"lift, seed 0: \d+ of 10 filters live, 160 examples", head)
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    assert rows[0] == list(bench.HEAD)
    assert rows[-1][0] == "all"
    assert sum(int(row[2]) for row in rows[1:-1]) == int(rows[-1][2])


def test_positive_control_scores_what_it_should(script):
    """The atoms as a dictionary score all; an atom cut off and one with a wrong stabilizer count."""
    bench = script("positive_control")
    truth = equivariant_net().truth("lift")
    live = torch.ones(len(truth.base), dtype=torch.bool)
    live[-1] = False
    rows = {row.stabilizer: row for row in bench.score(truth.atoms, atlas_of(truth.atoms, "D4"), truth, live)}
    assert list(rows) == ["D4", "C4", "D2", "C2", "D1", "C1", "all"]
    assert (rows["C1"].filters, rows["C1"].atoms, rows["D4"].atoms, rows["C2"].atoms) == (3, 24, 1, 4)
    for row in rows.values():
        assert row.latents == row.atoms
        assert (row.recovered, row.exact, row.whole, row.covered) == (1, 1, 1, 1)
        assert row.wrong == 0
    # One atom of the four of C2 is missing.
    kept = torch.arange(len(truth.atoms)) != int((truth.atom_base == 3).nonzero()[1])
    cut = {r.stabilizer: r for r in bench.score(truth.atoms[kept], atlas_of(truth.atoms[kept], "D4"), truth, live)}
    assert (cut["C2"].recovered, cut["C2"].latents, cut["C2"].exact) == (0.75, 3, 1)
    assert (cut["C2"].whole, cut["C2"].covered) == (0, 0.75)
    assert cut["D4"] == rows["D4"]
    # A dictionary whose latents are called invariant, which they are not.
    atlas = atlas_of(truth.atoms, "D4")
    invariant = next(s for s in atlas.stabilizers if s.name == "D4")
    wrong = dataclasses.replace(atlas, stabilizers=[invariant] * len(atlas.stabilizers))
    wrong_rows = {row.stabilizer: row for row in bench.score(truth.atoms, wrong, truth, live)}
    assert (wrong_rows["C1"].exact, wrong_rows["C1"].wrong, wrong_rows["D4"].wrong) == (0, 1, 0)
