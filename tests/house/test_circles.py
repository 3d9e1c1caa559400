"""Within a package no file imports itself by way of others; imports inside functions and for types count too."""

import ast
from pathlib import Path

import pytest

import groupcc

ROOT = Path(groupcc.__file__).parent
# Not ops: an op and its kernels are one thing. Kernels take the op's records, and the op loads a backend's kernels when
# they are first needed.
PACKAGES = sorted({path.parent.name for path in ROOT.glob("*/__init__.py")} - {"ops"})


def modules(package):
    """Dotted name → path of every file of a package; a package's `__init__` has the package's name."""
    files = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return files


def imported(path, known):
    """The modules among `known` that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in inside]
        else:
            continue
        yield from (name for name in names if name in known)


def circles(graph):
    """Every module that leads back to itself."""
    found = []
    for start in graph:
        reached, left = set(), [start]
        while left:
            for name in graph[left.pop()]:
                if name not in reached:
                    reached.add(name)
                    left.append(name)
        if start in reached:
            found.append(start)
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_circles(package):
    files = modules(package)
    assert len(files) > 1
    graph = {name: set(imported(path, files)) for name, path in files.items()}
    assert not circles(graph)


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c"]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
