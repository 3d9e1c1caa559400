"""The house's rules: imports run one way, nothing heavy comes in with `import groupcc`, files stay small."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import groupcc

ROOT = Path(groupcc.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))

# Each part with those it may import from. Anything may import errors, files, devices, defaults, lazy names, names of
# functions that are above it, the extension and the version.
ALLOWED = {
    "groups": set(),
    "ops": {"groups"},
    "data": {"ops", "groups"},
    "zoo": {"groups"},
    "models": {"data", "ops", "groups"},
    "views": {"zoo", "ops", "groups"},
    "harvesting": {"views", "data", "ops", "groups"},
    "training": {"models", "data", "ops", "groups"},
    "analysis": {"models", "data", "ops", "groups"},
    "visualization": {"harvesting", "views", "models", "data", "ops", "groups"},
    "causal": {"analysis", "harvesting", "views", "models", "data", "ops", "groups"},
    "report": {"causal", "visualization", "analysis", "data", "groups"},
    "bench": {"training", "models", "data", "ops", "groups"},
}
ALLOWED["cli"] = set(ALLOWED)


def imported_parts(path):
    """The part of groupcc for each import in the file, those inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "groupcc" else [node.module]
            )
        else:
            continue
        for name in names:
            if name.startswith("groupcc."):
                yield name.split(".")[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path):
    relative = path.relative_to(ROOT)
    if len(relative.parts) == 1:
        return
    part = relative.parts[0]
    allowed = ALLOWED[part] | {part, "errors", "files", "devices", "__version__", "_C", "_defaults", "_lazy", "_above"}
    for name in imported_parts(path):
        assert name in allowed, f"{relative} imports groupcc.{name}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.relative_to(ROOT).parts[0] == "ops"], ids=lambda p: p.parent.name
)
def test_op_folders_keep_to_themselves(path):
    folder = path.parent.relative_to(ROOT / "ops").parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if folder and isinstance(node, ast.ImportFrom) and (node.module or "").startswith("groupcc.ops."):
            parts = node.module.split(".")
            if parts[2] in ("_cpp", "_triton"):  # what the kernels of one backend share, for that backend alone
                assert parts[2] == folder[0] or path.stem.startswith(parts[2][1:]), f"{path} imports {node.module}"
            elif (ROOT / "ops" / parts[2]).is_dir() and parts[2] != folder[0]:
                # Another op's public function, never what is inside; a reference may build on another's reference.
                composed = path.stem == parts[-1] == "reference"
                assert len(parts) == 3 or composed, f"{path} imports {node.module}"
            if path.stem.split("_")[0] in ("cpp", "triton"):
                assert not node.module.endswith(".reference"), f"the kernel {path} imports its reference"


def test_files_are_under_450_lines():
    long = {str(p): n for p in MODULES if (n := len(p.read_text(encoding="utf-8").splitlines())) >= 450}
    assert not long


def run_python(code):
    environment = {name: value for name, value in os.environ.items() if name != "GROUPCC_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_groupcc_brings_in_nothing_heavy():
    heavy = "('torch', 'numpy', 'PIL', 'torchvision', 'triton')"
    assert run_python(f"import sys, groupcc; print([m for m in {heavy} if m in sys.modules])").strip() == "[]"


def test_help_brings_in_nothing_heavy():
    code = (
        "import sys\nfrom groupcc.cli import main\n"
        "try:\n    main(['run', '--help'])\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    assert "--layer" in run_python(code)


def test_everything_works_without_triton_torchvision_skimage_and_the_extension():
    code = """
import sys
for name in ("triton", "torchvision", "skimage", "tensorboard", "groupcc._C"):
    sys.modules[name] = None
import groupcc, torch
for name in groupcc.__all__:
    getattr(groupcc, name)
config = groupcc.CrosscoderConfig(group="D4", d_in=3, n_latents=8, k=2, dead_after=50)
acts = torch.randn(64, 8, 3)
settings = groupcc.TrainConfig(steps=5, batch_size=16, progress=False)
result = groupcc.train(groupcc.GroupCrosscoder(config), acts, settings)
print(len(groupcc.analyze(result.crosscoder, acts).table()))
"""
    assert run_python(code).strip() == "8"


def test_every_public_name_resolves():
    for name in groupcc.__all__:
        assert getattr(groupcc, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = groupcc.nothing_like_it
    assert set(groupcc.__all__) <= set(dir(groupcc))
