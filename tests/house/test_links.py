"""Links in docstrings, [`name`][groupcc.place], lead to something that exists."""

import importlib
import re
from pathlib import Path

import pytest

import groupcc

ROOT = Path(groupcc.__file__).parent


def links():
    for path in sorted(ROOT.rglob("*.py")):
        for target in re.findall(r"\]\[(groupcc[\w.]*)\]", path.read_text(encoding="utf-8")):
            yield pytest.param(target, id=f"{path.relative_to(ROOT)}-{target}")


def resolved(target):
    """The object of a dotted name: modules as far as they go, attributes after that."""
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:]:
            value = getattr(value, name)
        return value
    raise AssertionError(target)


@pytest.mark.parametrize("target", list(links()))
def test_a_link_leads_somewhere(target):
    assert resolved(target) is not None


def test_a_link_that_leads_nowhere_is_seen():
    with pytest.raises(AttributeError):
        resolved("groupcc.groups.no_such_thing")
