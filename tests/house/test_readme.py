"""The README's example and commands are what they say."""

import re
import runpy
from pathlib import Path

import pytest

from groupcc import ops
from groupcc.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_examples_run_as_written(tmp_path, monkeypatch):
    example, *more = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if "import" not in line]) <= 10
    monkeypatch.chdir(tmp_path)
    # What later examples call `atlas` is another one.
    kept = "result_of_example, quality = atlas.summary(), result.quality\n"
    (tmp_path / "example.py").write_text("".join([example, kept, *more]))
    made = runpy.run_path("example.py")
    assert made["atoms"].config.n_latents == made["tied"].config.n_atoms
    assert "<html" in (tmp_path / "report.html").read_text()
    counted, printed = of_summary(README), of_summary(made["result_of_example"])
    assert counted.keys() == printed.keys()
    assert made["quality"].doubts == [], "the example's dictionary describes the layer"
    for what, count in counted.items():
        assert printed[what] == pytest.approx(count, rel=0.5, abs=8), what
    assert printed["families"] >= 8
    assert printed["one mirror line"] >= 12


def of_summary(text):
    """The numbers that the summary prints, by what they count."""
    whole, mirror, undecided = (
        int(re.search(rf"^ *(\d+)  .*{words}", text, re.MULTILINE)[1])
        for words in ("The same at every angle", "one mirror line", "Undecided")
    )
    families, members = map(int, re.search(r"^(\d+) families of copies, (\d+) latents", text, re.MULTILINE).groups())
    fvu = float(re.search(r"^held out \(2 photographs\): FVU ([\d.]+)", text, re.MULTILINE)[1])
    counts = {"the same": whole, "one mirror line": mirror, "undecided": undecided}
    return counts | {"families": families, "members": members, "hundredths of FVU": 100 * fvu}


def test_every_command_line_parses():
    lines = re.findall(r"^    groupcc (.+)$", README, re.MULTILINE)
    assert lines
    for line in lines:
        build_parser().parse_args(line.split())


def test_the_first_commands_are_the_makefiles():
    commands = re.findall(r"^    make (\w+)$", README, re.MULTILINE)
    assert commands[:2] == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    for name in commands:
        assert re.search(rf"^{name}:", makefile, re.MULTILINE)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_table_of_ops_names_each():
    cells = re.findall(r"^\| (`.+?`) \|", README.split("## Compiled kernels")[1], re.MULTILINE)
    named = {op for cell in cells for op in re.findall(r"`(\w+)`", cell)}
    assert set(ops.registered_ops()) <= named <= set(ops.__all__)
