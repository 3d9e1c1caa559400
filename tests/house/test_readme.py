"""The README's example and commands are what they say."""

import re
import runpy
from pathlib import Path

from groupcc import ops
from groupcc.cli.parser import build_parser

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_examples_run_as_written(tmp_path, monkeypatch):
    example, *more = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in example.splitlines() if "import" not in line]) <= 5
    monkeypatch.chdir(tmp_path)
    (tmp_path / "example.py").write_text("".join([example, *more]))
    made = runpy.run_path("example.py")
    assert made["atoms"].config.n_latents == made["tied"].config.n_atoms
    assert "<html" in (tmp_path / "report.html").read_text()


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
