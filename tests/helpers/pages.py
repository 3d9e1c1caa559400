"""A page of the report, parsed and checked."""

from __future__ import annotations

from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

from helpers.report_samples import drawn

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Parses a page and notes what is wrong with it."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.problems: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()} closes nothing")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def with_class(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]


def read(path: Path) -> Page:
    text = drawn(path.read_text(encoding="utf-8"))
    page = Page(text)
    assert page.problems == []
    ids = Counter(attrs["id"] for _, attrs in page.tags if "id" in attrs)
    assert [name for name, count in ids.items() if count > 1] == []
    for tag, attrs in page.tags:
        for name in ("href", "src", "srcset", "action", "data"):
            link = attrs.get(name)
            if link is None:
                continue
            assert link.startswith(("#", "data:image/")) or link in ("table.csv", "atlas/table.csv"), link
            if link.startswith("#"):
                assert link[1:] in ids, f"{tag} links to {link}, which is not on the page"
        for reference in attrs.get("aria-labelledby", "").split():
            assert reference in ids
        if tag == "img":
            assert attrs["alt"].strip()
        if tag == "svg":
            assert attrs.get("aria-hidden") == "true" or (attrs["role"] == "img" and attrs["aria-label"].strip())
    assert "http:" not in text
    assert "https:" not in text
    assert "url(" not in text
    assert "@import" not in text
    return page
