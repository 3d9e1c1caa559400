"""tests/slow.txt names tests that there are, in order."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LINES = (TESTS / "slow.txt").read_text(encoding="utf-8").splitlines()


def test_each_line_is_a_test():
    assert sorted(set(LINES)) == LINES
    for line in LINES:
        file, name = line.split("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, line


@pytest.mark.parametrize("case", [1, 2])
def test_the_marker_is_that_of_the_file(case, request):
    assert request.node.get_closest_marker("slow") is None
    assert "house/test_readme.py::test_the_python_examples_run_as_written" in LINES
