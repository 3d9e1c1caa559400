"""groupcc bench: right results only, peers that aren't there are named, floors by hand, what is written."""

import csv
import math
import xml.etree.ElementTree as ElementTree

import pytest
import torch

from groupcc import ops
from groupcc.bench import cases, compare, peers, suites, tied_cases, timing
from groupcc.bench.output import Row, curves, header, line, markdown, plot
from groupcc.cli import main
from groupcc.errors import GroupccError
from groupcc.groups import group

CPU = torch.device("cpu")
RATES = timing.Rates(copy=1e9, gemm={torch.float32: 1e9, torch.bfloat16: 4e9})


def rows_of(case, missing=None, with_peers=True):
    found = {} if missing is None else missing
    return list(compare(case, repeats=1, device=CPU, rates=RATES, peers=with_peers, missing=found))


def test_a_table_a_csv_and_a_plot(tmp_path, capsys):
    assert main(["bench", "--repeats", "1", "--only", "topk", "orbit_gather", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "GB/s (read plus written), GEMM" in printed
    rows = list(csv.DictReader((tmp_path / "bench.csv").open(encoding="utf-8")))
    assert {row["op"] for row in rows} == {"topk", "orbit_gather"}
    assert all(float(row["ms"]) > 0 and float(row["floor ms"]) > 0 for row in rows)
    table = (tmp_path / "bench.md").read_text(encoding="utf-8")
    assert f"torch {torch.__version__.split('+')[0]}" in table
    assert len([line for line in table.splitlines() if line.startswith("| topk")]) == len(
        [row for row in rows if row["op"] == "topk"]
    )
    ElementTree.fromstring((tmp_path / "bench.svg").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--repeats", "0"], "repeats: expected at least 1"),
        (["--only", "topkk"], "--only: expected names of ops; got topkk"),
    ],
)
def test_wrong_options(capsys, options, message):
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


def test_every_op_is_in_every_suite():
    for scale in ("small", "goals"):
        timed = {op for op, _ in suites.suite(scale)}
        assert timed == set(ops.registered_ops()), scale


def test_the_terminals_columns_hold_every_op():
    start = header().index("case")
    for op in ops.registered_ops():
        assert line(Row(op, "x", "float32", "cpp", 1.0, "reference", 2.0, None, 0.5)).index(" x ") == start - 1


def test_the_gpus_cases_are_right_when_small():
    """In bf16 on the CPU: a GPU runs the same cases 64 times as large."""
    timed = set()
    for op, build in suites._gpu(("cpu", torch.bfloat16), shrink=64):
        with ops.use_backend("auto"):
            case = build()
        assert case.dtype == torch.bfloat16
        assert {row.op for row in rows_of(case)} == {op}
        timed.add(op)
    assert timed == set(ops.registered_ops())


def test_without_peers_and_with_the_systems_memory(capsys, monkeypatch):
    def unwanted():
        raise AssertionError("a peer was asked for, or the allocator was told")

    pre = torch.randn(8, 32)
    case = cases.topk("x", pre, 3, {})
    case.peers["unwanted"] = cases.Peer(unwanted, lambda result, ours: True)
    monkeypatch.setattr("groupcc.bench.suite", lambda scale: iter([("topk", lambda: case)]))
    monkeypatch.setattr("groupcc.bench.measure_rates", lambda dtypes, device: RATES)
    monkeypatch.setattr("groupcc.bench.warm_allocator", unwanted)
    assert main(["bench", "--repeats", "1", "--no-peers", "--memory", "system"]) == 0
    printed = capsys.readouterr().out
    assert "outputs in memory as the allocator gives it" in printed
    assert [line for line in printed.splitlines() if line.startswith("topk ")]


def test_a_wrong_peer_is_never_timed(monkeypatch):
    pre = torch.randn(8, 32, generator=torch.Generator().manual_seed(0))
    case = cases.topk("wrong", pre, 3, {"torch.topk": 1.0})
    assert 1.0 in [row.goal for row in rows_of(case)]
    for wrong in (
        lambda pre, k: lambda: torch.topk(-pre, k),
        lambda pre, k: lambda: (torch.topk(pre, k).values, torch.topk(-pre, k).indices),
    ):
        monkeypatch.setattr(peers, "torch_topk", wrong)
        with pytest.raises(GroupccError, match=r"torch.topk differs from the reference. Nothing was timed"):
            rows_of(cases.topk("wrong", pre, 3, {"torch.topk": None}))


def test_a_wrong_backend_is_never_timed(monkeypatch):
    case = cases.topk("wrong", torch.randn(8, 32), 3, {})
    calls = iter([lambda: torch.zeros(2), lambda: torch.ones(2)])
    use_backend = ops.use_backend
    broken = cases.Case("topk", "wrong", torch.float32, lambda: next(calls), case.nbytes)
    monkeypatch.setattr("groupcc.bench._BACKENDS", {"cpu": ("reference", "reference ")})
    monkeypatch.setattr("groupcc.bench._with_backend", lambda backend, call: call())
    monkeypatch.setattr("groupcc.bench.ops.use_backend", lambda name: use_backend("reference"))
    with pytest.raises(GroupccError, match="differs from the reference"):
        rows_of(broken)


def test_latents_that_rounding_exchanges_are_right():
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(6, 16, generator=generator), torch.randn(16, 12, generator=generator)
    W[:, 5] = W[:, 3] * (1 + 1e-7)
    case = cases.encode("close", x, W, 4, {"GEMM alone": None})
    acts, indices = case.build()()
    exchanged = torch.where(indices == 3, 5, torch.where(indices == 5, 3, indices))
    assert not torch.equal(exchanged, indices)
    assert case.agrees((acts, exchanged), (acts, indices))
    assert not case.agrees((acts, indices.roll(1, dims=1)), (acts, indices))
    assert not case.agrees((acts, indices[:, :1].expand(-1, 4)), (acts, indices))
    assert not case.agrees((acts * 1.1, indices), (acts, indices))


def test_a_case_that_fails_costs_its_own_rows_alone(tmp_path, capsys, monkeypatch):
    def no_room():
        raise RuntimeError("out of memory")

    pre = torch.randn(8, 32)
    builders = [
        ("topk", lambda: cases.topk("first", pre, 3, {"torch.topk": None})),
        ("batchtopk", no_room),
        ("topk", lambda: cases.topk("last", pre, 3, {"torch.topk": None})),
    ]
    monkeypatch.setattr("groupcc.bench.suite", lambda scale: iter(builders))
    monkeypatch.setattr("groupcc.bench.measure_rates", lambda dtypes, device: RATES)
    assert main(["bench", "--repeats", "1", "--out", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert "batchtopk: RuntimeError('out of memory')" in captured.err
    assert {row["case"] for row in csv.DictReader((tmp_path / "bench.csv").open(encoding="utf-8"))} == {"first", "last"}
    assert "failed: batchtopk" in (tmp_path / "bench.md").read_text(encoding="utf-8")


def test_a_peer_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    missing = {}
    rows = rows_of(cases.topk("x", torch.randn(4, 16), 2, {"faiss heap": 1.0}), missing)
    assert "faiss: pip install faiss-cpu" in missing
    assert "faiss heap" not in {row.against for row in rows}


@pytest.mark.parametrize("K", [1, 3])
def test_each_side_of_the_decodes_is_right(K):
    """Without optional packages these are PyTorch's; `compare` raises where one is wrong."""
    acts, indices = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)).topk(K)
    W_dec = torch.randn(10, 4, 3, generator=torch.Generator().manual_seed(1))
    everyone = {"F.embedding_bag": 1.0, "dense GEMM": 1.0, "sparsify decode": 1.0}
    against = {row.against for row in rows_of(cases.decode("x", acts, indices, W_dec, everyone))}
    assert {"F.embedding_bag", "dense GEMM"} <= against
    both = {"dense autograd": 1.0, "sparsify backward": 1.0}
    assert "dense autograd" in {row.against for row in rows_of(cases.decode_backward("x", acts, indices, W_dec, both))}
    rows_of(cases.decode_loss("x", acts, indices, W_dec, {}))


def test_gather_is_compared_at_the_groups_own_points():
    points = cases.orbit_points("D4", 7)
    assert points.shape == (8, 29, 2)  # lattice points within 3 of the middle
    assert torch.allclose(points.sort(dim=1).values, points[:1].sort(dim=1).values)  # D4 permutes the lattice
    rows = rows_of(cases.gather("x", torch.randn(1, 8, 7, 7, 5), points, "bilinear", {"grid_sample + permute": 2.0}))
    assert rows[0].against_ms > 0


def test_floors_by_hand(monkeypatch):
    pre = torch.randn(8, 32)
    row = rows_of(cases.topk("x", pre, 3, {}))[0]
    assert math.isclose(row.floor, 1e3 * (8 * 32 * 4 + 8 * 3 * 12) / 1e9)
    flops = 2 * 64 * 64 * 128
    for fast, rate in ((False, 1e9), (True, 4e9)):  # screening multiplies in bfloat16
        monkeypatch.setattr(cases, "screening", lambda fast=fast: fast)
        row = rows_of(cases.encode("x", torch.randn(64, 64), torch.randn(64, 128), 3, {"GEMM alone": None}))[0]
        assert math.isclose(row.floor, 1e3 * flops / rate)
    acts, indices = torch.rand(2, 2), torch.tensor([[0, 1], [1, 3]])  # three rows of six are read
    case = cases.decode("x", acts, indices, torch.randn(6, 2, 5), {})
    assert case.nbytes == (3 + 2) * 10 * 4 + 4 * 12


def test_floors_of_the_gathers_by_hand():
    maps = torch.randn(1, 1, 4, 4, 7)
    points = torch.tensor([[[0.5, 0.5], [1.5, 0.5]]])  # six pixels between them
    case = cases.gather("x", maps, points, "bilinear", {})
    assert (case.nbytes, case.flops) == ((6 + 2) * 7 * 4, 2 * 8 * 7)
    case = cases.gather("x", maps, torch.tensor([[[1.0, 1.0], [2.0, 1.5]]]), "bilinear", {})  # one pixel, and two
    assert (case.nbytes, case.flops) == ((3 + 2) * 7 * 4, 2 * 3 * 7)
    case = cases.gather("x", maps, torch.tensor([[[1.2, 1.2], [1.8, 1.2]]]), "bspline", {})  # 3 by 3, and 3 more
    assert (case.nbytes, case.flops) == ((12 + 2) * 7 * 4, 2 * 18 * 7)
    two = torch.randn(1, 2, 4, 4, 7)  # the same pixels of two maps are not the same
    assert cases.gather("x", two, points.expand(2, 2, 2), "bilinear", {}).nbytes == 2 * (6 + 2) * 7 * 4
    case = cases.gather_encode("x", maps, points, 5)
    assert (case.nbytes, case.flops) == ((6 * 7 + 7 * 5 + 2 * 5) * 4, 2 * 2 * 7 * 5)


def test_goals_are_ratios():
    row = Row("topk", "x", "float32", "cpp", 2.0, "torch.topk", 30.0, 15.0, 1.0)
    assert row.ratio == 15.0
    assert row.met
    assert "15 met" in markdown([row], ["here"])
    assert "torch.topk 30.0 ms" in plot([row], ["here & there"])


def test_every_side_has_a_mark_of_its_own_within_the_plot():
    rows = [Row("topk", "x", "float32", "cpp", 2.0, f"peer number {i}", 3.0 + i, None, 1.0) for i in range(16)]
    svg = ElementTree.fromstring(plot(rows, ["here"]))
    marks = [path for path in svg.iter("{http://www.w3.org/2000/svg}path") if len(path) == 1]
    assert len({(mark.get("fill"), mark.get("d")) for mark in marks}) == 17
    names = [text for text in svg.iter("{http://www.w3.org/2000/svg}text") if text.text.startswith("peer")]
    assert len(names) == 16
    assert all(float(text.get("x")) + 7 * len(text.text) <= float(svg.get("width")) for text in names)
    lines = {f"side {i}": [1.0, 0.5] for i in range(14)}
    drawn = [
        (path.get("stroke"), path.get("stroke-dasharray"))
        for path in ElementTree.fromstring(curves(lines, "step", "FVU")).iter("{http://www.w3.org/2000/svg}path")
        if path.get("fill") == "none"
    ]
    assert len(set(drawn)) == 14


def test_turns_alternate():
    order = []
    sides = {name: lambda name=name: order.append(name) or __import__("time").sleep(0.005) for name in "ab"}
    times = timing.interleaved(sides, 3, CPU)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
    assert [len(values) for values in times.values()] == [3, 3]


def test_curves_are_drawn_for_each_side():
    svg = ElementTree.fromstring(curves({"a": [1.0, 0.5, 0.1], "b & c": [1.0, math.nan, 0.2]}, "step", "FVU"))
    lines = [path for path in svg.iter("{http://www.w3.org/2000/svg}path") if path.get("fill") == "none"]
    assert [len(path.get("d").split("L")) for path in lines] == [3, 2]


def test_cases_of_tied_crosscoders_by_hand():
    G, orbits, W = group("C3"), torch.randn(4, 3, 5), torch.randn(2, 3, 5)
    case = tied_cases.group_decode_loss("x", orbits, W, G, {}, k=2)  # both base latents are read
    assert (case.nbytes, case.flops) == ((2 * 2 + 3 * 4 + 2) * 15 * 4, (6 * 2 + 3) * 4 * 15)
    case = tied_cases.group_encode_at("x", orbits, W, G, {}, k=2)
    assert (case.nbytes, case.flops) == ((4 + 2) * 15 * 4 + 8 * (16 + 8), 2 * 4 * 2 * 15)
    case = tied_cases.pose_maxima("x", orbits, W, G, {}, k=2)
    assert case.nbytes == 4 * 6 * 4 + 8 * 12
    taken, values = case.build()()
    assert case.agrees((taken, values), (taken, values))
    assert not case.agrees((taken.flip(1), values), (taken, values))
    assert not case.agrees((taken.flip(1), values.flip(1)), (taken, values))
