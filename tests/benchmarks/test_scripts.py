"""The scripts in benchmarks/ run, at sizes that mean nothing."""

import csv
import sys

import pytest
import torch

import groupcc
from groupcc.bench.timing import Rates
from helpers.stores import run as harvest_tiny


def test_bench_step(script, tmp_path, capsys, monkeypatch):
    bench_step = script("bench_step")
    monkeypatch.setattr(bench_step, "measure_rates", lambda dtypes, _: Rates(1e9, dict.fromkeys(dtypes, 1e9)))
    monkeypatch.setitem(sys.modules, "overcomplete", None)
    sizes = "--group C4 --width 4 --latents 32 --k 4 --batch 8 --examples 64 --steps 4"
    sides = ["--sides", "topk", "batchtopk", "overcomplete TopKSAE", "plain PyTorch, dense"]
    bench_step.main([*sizes.split(), *sides, "--threads", str(torch.get_num_threads()), "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "products in float32" in printed
    assert "left out: overcomplete" in printed
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith(("| groupcc", "| plain"))]
    assert {row[0][2:]: row[2] for row in rows} == {
        "groupcc topk, auto": "groupcc topk, auto",
        "groupcc topk, reference": "groupcc topk, auto",
        "groupcc batchtopk, auto": "groupcc batchtopk, auto",
        "groupcc batchtopk, reference": "groupcc batchtopk, auto",
        "plain PyTorch, dense": "groupcc topk, auto",
    }
    steps = list(csv.DictReader((tmp_path / "step.csv").open(encoding="utf-8")))
    assert len(steps) == 4 * 5
    assert all(float(row["ms"]) > 0 and 0 < float(row["fvu"]) < 2 for row in steps)


def test_bench_tied_step(script, capsys, monkeypatch):
    """Every side trains, and the tied one is what the others are compared with."""
    bench = script("bench_tied_step")
    monkeypatch.setattr(bench, "measure_rates", lambda dtypes, _: Rates(1e9, dict.fromkeys(dtypes, 1e9)))
    sizes = "--group D3 --width 5 --base-latents 6 --k 2 --batch 8 --examples 64 --steps 4"
    bench.main([*sizes.split(), "--threads", str(torch.get_num_threads())])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    assert [row[0] for row in rows] == ["| tied", "| alike", "| untied"]
    assert rows[0][2] == "1.0"
    assert all(0 < float(row[3].strip(" |")) < 2 for row in rows)


def test_bench_families(script, capsys):
    script("bench_families").main(["--group", "D3", "--width", "4", "--latents", "40", "--threads", "1"])
    lines = capsys.readouterr().out.splitlines()
    # Two irreps of dimension 1 and one of 2: 2 + 8, times 4 channels and 780 pairs.
    assert lines[0].endswith("3.1e+04 multiplications")
    rows = [line.split(" | ") for line in lines if line.startswith(("| every", "| families"))]
    assert len(rows) == 2
    assert all(float(row[k].strip(" |")) > 0 for row in rows for k in (1, 3, 4))


def test_every_peer_multiplies_in_the_dtype_of_ours(script, monkeypatch):
    bench_step = script("bench_step")
    args = bench_step.parse(["--group", "C2", "--width", "2", "--latents", "8", "--k", "2"])
    assert bench_step.products(args) == torch.float32
    monkeypatch.setattr(bench_step, "products", lambda args: torch.bfloat16)
    x, seen = torch.randn(8, 4), []
    multiplied = torch.Tensor.topk
    monkeypatch.setattr(
        torch.Tensor, "topk", lambda self, *rest, **how: seen.append(self.dtype) or multiplied(self, *rest, **how)
    )
    bench_step.plain_step(args, lambda i: x, 1.0)(0)
    assert seen == [torch.bfloat16]


def test_decode_crossover(script, capsys):
    decode_crossover = script("decode_crossover")
    dense_up_to = decode_crossover._dense_decode.DENSE_UP_TO
    try:
        decode_crossover.main(["--repeats", "1", "--n", "4", "--k", "2", "--width", "2", "3"])
    finally:
        decode_crossover._dense_decode.DENSE_UP_TO = dense_up_to
    lines = capsys.readouterr().out.splitlines()
    assert [int(line.split()[0]) for line in lines[2:]] == list(decode_crossover.RATIOS)
    assert all(float(line.split()[3]) > 0 for line in lines[2:])


@pytest.mark.parametrize("pose", [[], ["--pose", "nms", "--dead-after", "100"]])
def test_planted_recovery(script, capsys, pose):
    planted_recovery = script("planted_recovery")
    sizes = "--group C4 --d-in 4 --planted 2 --latents 8 --k 2 --n-active 1 --samples 400 --steps 5 --batch-size 32"
    planted_recovery.main([*sizes.split(), "--seeds", "0", "1", "--threads", str(torch.get_num_threads()), *pose])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["seed", "0", "1"]
    assert all(line[2].endswith("%") for line in lines[1:])
    assert lines[0][3] == "shapes"


def test_planted_recovery_compares(script, capsys):
    planted_recovery = script("planted_recovery")
    planted_recovery.LADDER = (1, 2, 30)
    sizes = "--group C2 --d-in 4 --planted 1 --latents 2 --k 1 --n-active 1 --samples 400 --steps 5 --batch-size 32"
    arguments = [*sizes.split(), "--seeds", "0", "1", "--threads", str(torch.get_num_threads()), "--compare"]
    planted_recovery.main([*arguments, "--goal", "0"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:3] for line in lines[1:5]] == [
        [side, n, s] for s in "01" for side, n in (("tied", "5"), ("untied", "1"))
    ]
    assert [line[0] for line in lines[5:]] == ["seconds,", "processor"]
    # The untied one goes up the ladder until it has what is asked for.
    planted_recovery.main([*arguments, "--goal", "1"])
    untied = [line.split() for line in capsys.readouterr().out.splitlines()][2]
    assert untied[:2] == ["untied", "30"] or (untied[1] == "2" and untied[4] == "100.0%")


def test_compare_families(script, capsys):
    sizes = "--split held_out --group C4 --input-size 97 --positions random:8 --latents 24 32 --k 3 --steps 40 20"
    threads = str(torch.get_num_threads())
    script("compare_families").main([*sizes.split(), "--repeats", "2", "--threads", threads])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("200 places, D 80, C4")
    for line, name in zip(lines[2:], ("nearest both ways", "largest sum"), strict=True):
        shares = [float(part.rstrip("%")) for part in line.removeprefix(name).split()]
        assert sum(shares[:4]) == pytest.approx(100, abs=0.3) or not any(shares[:4])
        assert sum(shares[4:]) == pytest.approx(100, abs=0.3)


def test_broken_symmetry(script, capsys):
    broken_symmetry = script("broken_symmetry")
    sizes = "--group C4 --d-in 6 --planted 2 --latents 4 --samples 600 --steps 5 --penalties 0 inf"
    broken_symmetry.main([*sizes.split(), "--threads", str(torch.get_num_threads())])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert 0.1 < float(lines[0][2]) < 0.9
    assert [line[0] for line in lines[2:]] == ["0", "inf"]
    assert float(lines[2][2]) > float(lines[3][2]) == 0


def tiny_demo(bench_demo, store):
    """In place of `groupcc demo`: what it leaves, from a crosscoder that no one trained."""

    def demo(run, steps, out):
        crosscoder = groupcc.GroupCrosscoder(
            groupcc.CrosscoderConfig(group=store.group.name, d_in=store.d_in, n_latents=12, k=3, encoder="orbit"),
            seed=run.seed,
        )
        harvest = out / "orbits"
        harvest.parent.mkdir(parents=True)
        harvest.symlink_to(store.path)
        crosscoder.save_pretrained(out / "crosscoder" / "crosscoder")
        groupcc.analyze(crosscoder, store).save(out / "atlas")
        return {"train": 2.0, "all of it": 3.0}

    return demo


@pytest.fixture(scope="module", name="store")
def tiny_store(tmp_path_factory):
    images = torch.rand(2, 3, 90, 90, generator=torch.Generator().manual_seed(0))
    return harvest_tiny(images, tmp_path_factory.mktemp("orbits") / "store")


def test_bench_demo(script, capsys, monkeypatch, store, tmp_path):
    bench_demo = script("bench_demo")
    monkeypatch.setattr(bench_demo, "demo", tiny_demo(bench_demo, store))
    assert bench_demo.main(["--keep", str(tmp_path / "runs")]) == 0
    printed = capsys.readouterr().out
    assert "analysed by both backends: equal" in printed
    shares = {line.split("  ")[0]: line.split()[-3:] for line in printed.splitlines() if line.endswith("%")}
    assert shares["auto"] == shares["reference, no vectors"] == ["100.0%"] * 3
    assert shares["reference, another seed"][0] == "0.0%"
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {
        "auto 0", "reference 0", "reference, no vectors 0", "reference, another seed 0",
    }  # fmt: skip
    with pytest.raises(SystemExit):
        bench_demo.parse(["--keep", str(tmp_path)])


def test_bench_demo_fails_where_the_backends_read_off_other_families(script, monkeypatch, store):
    bench_demo = script("bench_demo")
    monkeypatch.setattr(bench_demo, "demo", tiny_demo(bench_demo, store))
    analyze = groupcc.analyze

    def other(crosscoder, orbits):
        atlas = analyze(crosscoder, orbits)
        if groupcc.ops.current_backend() == "reference":
            atlas.families.labels[0] += 1
        return atlas

    monkeypatch.setattr(groupcc, "analyze", other)
    monkeypatch.setattr(bench_demo, "OTHERS", ())
    assert bench_demo.main([]) == 1


def test_likeness_does_not_depend_on_numbers(script):
    bench_demo = script("bench_demo")
    crosscoder = groupcc.GroupCrosscoder(groupcc.CrosscoderConfig(group="D4", d_in=6, n_latents=10, k=3), seed=0)
    atlas = groupcc.analyze(crosscoder)
    W = crosscoder.W_dec.detach().clone()
    same = (W, atlas)
    assert bench_demo.likeness(same, same) == bench_demo.Likeness(1.0, 1.0, 1.0)
    turned = W[:, torch.from_numpy(atlas.group.right_translation[5].copy())]  # by a reflection
    with torch.no_grad():
        crosscoder.W_dec.copy_(turned.flip(0))
    other = bench_demo.likeness((crosscoder.W_dec.detach(), groupcc.analyze(crosscoder)), same)
    assert other.same_place < 0.2
    assert (other.translates, other.same_stabilizer) == (1.0, 1.0)
    assert bench_demo.likeness(same, (torch.randn_like(W), atlas)).translates < 0.2
