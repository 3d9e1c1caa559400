"""Nobody asks a crosscoder for its kind, and the files of models import each other one way."""

import ast
from pathlib import Path

import pytest

import groupcc

ROOT = Path(groupcc.__file__).parent
MODELS = {
    "groupcc." + ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "models").rglob("*.py"))
}
KIND = {"tied", "pose", "residual_penalty"}
"""Fields of a configuration that say which kind it is; `sparsity` is one too, and the name of an object."""


def imported(path):
    """Modules that a file imports, inside functions and for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in MODELS else node.module


def test_models_import_each_other_one_way():
    """Files are taken away that import none of those left, until none is left."""
    left = {name: {other for other in imported(path) if other in MODELS} - {name} for name, path in MODELS.items()}
    assert left["groupcc.models.crosscoder"]
    while left:
        leaves = {name for name, others in left.items() if not others & left.keys()}
        assert leaves, f"a circle among {sorted(left)}"
        left = {name: others for name, others in left.items() if name not in leaves}


def askers():
    homes = [ROOT / "models" / "forms", ROOT / "models" / "sparsity", ROOT / "models" / "config.py"]
    for package in ("models", "training", "data"):
        for path in sorted((ROOT / package).rglob("*.py")):
            if not any(home in (path, *path.parents) for home in homes):
                yield path


@pytest.mark.parametrize("path", list(askers()), ids=lambda path: str(path.relative_to(ROOT)))
def test_nobody_asks_for_a_kind(path):
    questions = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in KIND:
            questions.append(f"{path.name}:{node.lineno}: .{node.attr}")
        if isinstance(node, ast.Compare):
            words = [part.attr for part in (node.left, *node.comparators) if isinstance(part, ast.Attribute)]
            asked = [word for word in words if word in ("sparsity", "form")]
            questions += [f"{path.name}:{node.lineno}: .{word} compared" for word in asked]
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
            words = {part.id for part in ast.walk(node.args[1]) if isinstance(part, ast.Name)}
            kinds = {"Untied", "Tied", "Residual", "TopK", "BatchTopK", "L1", "Strongest", "Suppressed", "EachLatent"}
            questions += [f"{path.name}:{node.lineno}: isinstance {word}" for word in words & kinds]
    assert not questions
