"""The command line: help at once, errors in one line, and the whole pipeline, killed in each stage and gone on with."""

import csv
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from groupcc.cli import main, stages
from groupcc.cli.compare import training_seconds
from groupcc.cli.parser import build_parser
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.training import TrainConfig
from helpers.workplaces import RUN, furnish

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    furnish(folder)
    subprocess.run(
        [sys.executable, "-m", "groupcc", *RUN], cwd=folder, check=True, capture_output=True, env=ENVIRONMENT
    )
    return folder / "out"


def test_the_whole_way_and_a_second_time(workplace, capsys):
    assert main(RUN) == 0
    printed = capsys.readouterr().out
    assert "The report: out/report.html" in printed
    page = (workplace / "out" / "report.html").read_text()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
    rows = list(csv.DictReader((workplace / "out" / "atlas" / "table.csv").open()))
    assert [int(row["latent"]) for row in rows] == list(range(16))
    comparison = json.loads((workplace / "out" / "comparison.json").read_text())
    assert [row["dictionary"] for row in comparison] == ["group crosscoder", "plain SAE + regression"]
    assert comparison[0]["L0"] <= 2
    kept = {p: p.stat().st_mtime_ns for p in (workplace / "out").rglob("*.bin")}
    weights = (workplace / "out" / "crosscoder" / "crosscoder" / "crosscoder.safetensors").read_bytes()
    assert main(RUN) == 0
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert (workplace / "out" / "crosscoder" / "crosscoder" / "crosscoder.safetensors").read_bytes() == weights
    assert (workplace / "out" / "report.html").read_text() == page


def test_a_tied_dictionary_gets_a_report_of_its_own(workplace, uninterrupted, capsys):
    """As in the demo: with the dials, and a link from the comparison."""
    store = stages.open_orbits(uninterrupted / "orbits")
    config = CrosscoderConfig(group="D4", d_in=store.d_in, n_latents=16, k=2, encoder="orbit")
    settings = TrainConfig(steps=5, batch_size=16, held_out=0.3, progress=False)
    tied = dataclasses.replace(config, n_latents=4, tied=True)
    for _ in range(2):
        stages.dictionary_to_report(
            workplace / "out", store, config, settings, {}, title="T", baseline=True, tied=(tied, settings)
        )
        page = (workplace / "out" / "tied" / "report.html").read_text()
        assert "<h1>T, poses tied</h1>" in page
        assert "live base latent" in page
        assert "distinct atoms in all" in page
        assert "pose selection" in page
    assert '<a href="tied/report.html">pose-tied crosscoder</a>' in (workplace / "out" / "report.html").read_text()
    rows = list(csv.DictReader((workplace / "out" / "tied" / "atlas" / "table.csv").open()))
    assert sum(int(row["firings"]) for row in rows) > 0
    rows = json.loads((workplace / "out" / "comparison.json").read_text())
    assert rows[-1]["report"] == "tied/report.html"
    assert all(row["training, s"] >= 0 for row in rows)
    assert re.search(r"It was trained for \d+ s, the untied one for \d+ s; \d of its base", rows[-1]["verdict"])


def test_training_time_adds_up_over_interruptions(tmp_path):
    seconds = [2.0, 5.5, None, 1.0, 3.0, 0.5]
    lines = [json.dumps({"step": i} if s is None else {"step": i, "seconds": s}) for i, s in enumerate(seconds)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert training_seconds(tmp_path / "metrics.jsonl") == 5.5 + 3.0 + 0.5
    (tmp_path / "metrics.jsonl").write_text("")
    assert training_seconds(tmp_path / "metrics.jsonl") == 0


@pytest.mark.parametrize("stage", ["orbits", "crosscoder", "atlas", "sae", "report.html"])
def test_killed_in_each_stage_it_ends_as_if_it_had_not_been(workplace, uninterrupted, stage):
    """SIGKILL as soon as the stage's first trace appears; the second run goes on."""
    command = [sys.executable, "-m", "groupcc", *RUN]
    traces = {"report.html": ".report.html"}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while child.poll() is None and time.monotonic() < deadline:
        out = workplace / "out"
        if (out / stage).exists() or any(out.glob(f"{traces.get(stage, '.' + stage)}*")):
            child.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    child.wait()
    again = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert again.returncode == 0, again.stderr
    for name in (
        "crosscoder/crosscoder/crosscoder.safetensors",
        "sae/crosscoder/crosscoder.safetensors",
        "atlas/table.csv",
        "comparison.json",
        "report.html",
    ):
        assert (workplace / "out" / name).read_bytes() == (uninterrupted / name).read_bytes(), name


DAMAGE = {
    "atlas/inputs.json": ("[]", 0, ""),
    "atlas/atlas.json": ("[]", 0, ""),
    "crosscoder/checkpoints/step-000000030/state.json": ("[]", 0, "state.json is damaged"),
    "crosscoder/metrics.jsonl": ("nonsense\n", 2, "line 1: expected a JSON object"),
}


@pytest.mark.filterwarnings("always::groupcc.errors.GroupccWarning")
@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_files_are_made_again_or_named(workplace, uninterrupted, capsys, name):
    content, status, message = DAMAGE[name]
    shutil.copytree(uninterrupted, workplace / "out")
    (workplace / "out" / name).write_text(content)
    assert main(RUN) == status
    assert message in capsys.readouterr().err
    if not status:
        for same in ("crosscoder/crosscoder/crosscoder.safetensors", "atlas/table.csv", "report.html"):
            assert (workplace / "out" / same).read_bytes() == (uninterrupted / same).read_bytes(), same


def test_stage_by_stage(workplace, capsys):
    options = ["--model", "tiny_cli_net:Net", "--layer", "first", "--input-size", "33", "--positions", "random:10"]
    assert main(["harvest", *options, "--images", "images", "--group", "C4", "--seed", "3", "--out", "orbits"]) == 0
    train = ["train", "--orbits", "orbits", "--latents", "8", "--k", "2", "--steps", "5", "--batch-size", "8"]
    assert main([*train, "--out", "run"]) == 0
    assert main(["analyze", "--crosscoder", "run/crosscoder", "--orbits", "orbits", "--out", "atlas"]) == 0
    assert main(["report", "--atlas", "atlas", "--orbits", "orbits", "--out", "page.html"]) == 0
    assert (workplace / "page.html").stat().st_size > 10_000
    assert GroupCrosscoder.from_pretrained("run/crosscoder").provenance["layer"] == "first"
    capsys.readouterr()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["harvest", "--model", "tiny_cli_net:Net", "--layer", "frist", "--images", "images", "--out", "o"], "first"),
        (["harvest", "--model", "resnet81", "--layer", "x", "--images", "images", "--out", "o"], "resnet18"),
        (["train", "--orbits", "nowhere", "--out", "o"], "nowhere"),
        (["report", "--atlas", "nowhere", "--out", "o.html"], "nowhere"),
        ([*RUN, "--margin", "wide"], "--margin: expected a number"),
        ([*RUN, "--k", "99"], "k: expected at most n_latents = 16"),
        ([*RUN, "--device", "nonsense"], "device: expected a device"),
        ([*RUN, "--out", "images/<b>0.png"], "Not a directory"),
        (["harvest", *RUN[1:11], "--out", "/dev/null/x"], "Not a directory"),
    ],
)
def test_errors_are_one_line_that_helps(workplace, capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert "groupcc: error: " in error
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--k", "99"], "k: expected at most"),
        (["--tolerance", "wide"], "--tolerance: expected a number"),
        (["--tolerance", "2"], "tolerance: expected"),
        (["--family-threshold", "7"], "family_threshold: expected a cosine"),
        (["--held-out", "2"], "held_out: expected a share"),
        (["--sparsity", "l1"], "l1_coefficient: expected a positive number"),
        (["--tensorboard"], "--tensorboard: expected"),
    ],
)
def test_run_refuses_wrong_options_before_the_harvest(workplace, capsys, monkeypatch, options, message):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([*RUN, *options]) == 2
    assert message in capsys.readouterr().err
    assert not (workplace / "out").exists()


def test_analyze_spares_a_directory_of_something_else(workplace, capsys):
    GroupCrosscoder(CrosscoderConfig(group="C2", d_in=3, n_latents=4, k=2)).save_pretrained("crosscoder")
    assert main(["analyze", "--crosscoder", "crosscoder", "--out", "images"]) == 2
    assert "They would be lost" in capsys.readouterr().err
    assert len(list((workplace / "images").iterdir())) == 6


def test_a_terminal_that_lacks_letters(workplace):
    command = [sys.executable, "-m", "groupcc", *RUN, "--steps", "2"]
    environment = {**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "harvest" in done.stdout


def test_every_command_has_help(capsys):
    for command in ("demo", "run", "harvest", "train", "analyze", "report", "compare", "bench", "doctor"):
        with pytest.raises(SystemExit) as done:
            build_parser().parse_args([command, "--help"])
        assert done.value.code == 0
        printed = capsys.readouterr().out
        assert "options" in printed
        assert "default: None" not in printed
        assert "default: False" not in printed
