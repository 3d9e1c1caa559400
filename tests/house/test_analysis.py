"""The house of analysis and report: folders that import one way, parts that are registered once."""

import ast
import dataclasses
import inspect
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.analysis import parts
from groupcc.analysis.options import Options
from groupcc.analysis.part import TOPICS, Note, Part
from groupcc.analysis.run import Analysis

ROOT = Path(groupcc.__file__).parent
FOLDERS = ["symmetry", "families", "evidence", "compare"]
"""The folders of analysis. Each imports from those before it alone."""


def modules(package):
    """Dotted name → path of every file of a package; a package's `__init__` has the package's name."""
    files = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names = path.relative_to(ROOT.parent).with_suffix("").parts
        files[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return files


def imported(path, known):
    """The modules among `known` that a file imports anywhere."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in (*inside, node.module) if name in known)


def test_the_folders_of_analysis_import_one_way():
    files = modules("analysis")
    place = {name: FOLDERS.index(name.split(".")[2]) for name in files if name.split(".")[2:3] and name.count(".") > 2}
    assert set(place.values()) == set(range(4))
    for name, own in place.items():
        for other in imported(files[name], place):
            assert place[other] <= own, f"{name} imports {other}"


def test_analysis_does_not_import_the_report():
    for path in modules("analysis").values():
        assert "groupcc.report import" not in path.read_text(encoding="utf-8")


def test_defaults_of_analyze_are_those_of_its_options():
    parameters = inspect.signature(groupcc.analyze).parameters
    for field in dataclasses.fields(Options):
        if field.name != "requested":
            assert parameters[field.name].default == field.default, field.name


@pytest.mark.parametrize("name", parts.PARTS)
def test_every_input_of_a_part_is_there(name):
    kind = parts.part_kind(name)
    own = {"crosscoder", "group", "options", "W_dec_LGD", "orbits"}
    known = own | set(dir(Analysis)) | set(parts.PARTS)
    assert set(inspect.signature(kind.measure).parameters) <= known
    stored = {field.name for field in dataclasses.fields(groupcc.Atlas)} | {"tensors"}
    assert set(inspect.signature(kind.from_tensors).parameters) <= stored


@dataclasses.dataclass(frozen=True, eq=False)
class Doubled(Part):
    """A part of a test: twice the modulation that the part "tuning" and the symmetries are there for."""

    values: torch.Tensor

    @classmethod
    def measure(cls, symmetries, tuning, orbits):
        return None if orbits is None else cls(2 * symmetries.autocorrelation[:, 1] + 0 * tuning.depth.nan_to_num())

    def columns(self, latent):
        return {"doubled": float(self.values[latent])}

    def notes(self, latent):
        return [Note("data", f"Doubled {latent}."), Note("worth", "As {}.", 0)]

    def tensors(self):
        return {"doubled": self.values}

    @classmethod
    def from_tensors(cls, tensors, stabilizers):
        assert len(stabilizers) == len(tensors["dead"])
        return cls(tensors["doubled"]) if "doubled" in tensors else None


@pytest.fixture
def small():
    crosscoder = GroupCrosscoder(CrosscoderConfig(group="D3", d_in=4, n_latents=5, k=2, encoder="orbit"))
    return crosscoder, torch.randn(30, 6, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def doubled(monkeypatch):
    """`Doubled` registered, before what it reads."""
    home = SimpleNamespace(Doubled=Doubled)
    monkeypatch.setitem(sys.modules, "groupcc.analysis.doubled", home)
    before = dict(parts.PARTS)
    parts.PARTS.clear()
    parts.PARTS.update({"doubled": parts.Registration("doubled", "Doubled"), **before})
    yield
    parts.PARTS.clear()
    parts.PARTS.update(before)


@pytest.mark.usefixtures("doubled")
def test_a_new_part_is_one_class_and_one_registration(tmp_path, small):
    """It is in the atlas, its table, its file, its notes, and on the page."""
    crosscoder, acts = small
    atlas = groupcc.analyze(crosscoder, acts)
    expected = 2 * atlas.autocorrelation[:, 1]
    assert torch.equal(atlas.part(Doubled).values, expected)
    assert [row["doubled"] for row in atlas.table()] == expected.tolist()
    notes = atlas.notes(3)
    assert (notes[0].text, notes[-1]) == ("Doubled 3.", ("worth", "As {}.", 0))
    assert [TOPICS.index(note.topic) for note in notes] == sorted(TOPICS.index(note.topic) for note in notes)
    again = groupcc.Atlas.load(atlas.save(tmp_path / "atlas"))
    assert torch.equal(again.part(Doubled).values, expected)
    assert again.table() == atlas.table()
    assert groupcc.analyze(crosscoder).part(Doubled) is None


def test_parts_on_request(small):
    crosscoder, acts = small
    assert [name for name, registered in parts.PARTS.items() if registered.on_request] == ["scaling"]
    assert groupcc.analyze(crosscoder, acts).scaling is None
    assert groupcc.analyze(crosscoder, acts, scaling=False).scaling is None
    assert groupcc.analyze(crosscoder, acts, scaling=True).scaling is not None
    for options, message in (
        ({"scaling": True}, "scaling: expected orbits to measure it on; got orbits=None"),
        ({"tuning": True}, r"tuning: expected an option of analyze, or a part on request \(scaling\)"),
        ({"misspelt": True}, "misspelt: expected an option of analyze"),
    ):
        with pytest.raises(groupcc.errors.ArgumentError, match=message):
            groupcc.analyze(crosscoder, **options)
