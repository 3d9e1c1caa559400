"""What the report says, word by word: in one file, so that a changed sentence changes one file beside its own.

Other tests of the report ask for numbers, elements and conditions, and leave the words to this one.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from groupcc.report import parts
from helpers import golden


def test_the_golden_pages(tmp_path: Path) -> None:
    now, then = golden.golden_text(tmp_path), golden.GOLDEN.read_text(encoding="utf-8")
    if now != then:
        changes = difflib.unified_diff(then.splitlines(), now.splitlines(), "golden", "this tree", lineterm="", n=1)
        pytest.fail("\n".join([*changes, f"If that is meant: {golden.REWRITE}"]), pytrace=False)


def test_every_part_of_the_page_is_on_a_golden_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a new part's words would be in no test."""
    seen = set()
    made = parts.page_parts

    def noted(page):
        own = made(page)
        seen.update(map(type, own))
        return own

    monkeypatch.setattr("groupcc.report.page.page_parts", noted)
    golden.golden_text(tmp_path)
    assert seen == set(parts.PARTS)
