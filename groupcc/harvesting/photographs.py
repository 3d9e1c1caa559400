"""Which images show one photograph: a key for every image, from its folder, its name or a table."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from groupcc.errors import argument_error
from groupcc.files import canonical_hash

__all__ = ["PARENT", "Groups", "PhotographKeys", "photograph_keys"]

Groups = str | os.PathLike[str] | None
"""What `harvest` takes as `groups`."""

PARENT = "parent"
_COLUMNS = ("image", "group")
_EXPECTED = '"parent", a regular expression, the path of a .csv file, or None'


@dataclass(frozen=True)
class PhotographKeys:
    """How the key of an image's photograph follows from the image's name: a `pattern`, a `table`, or the folder."""

    pattern: re.Pattern[str] | None = None
    table: Mapping[str, str] | None = None
    source: str = PARENT
    """The argument, for messages."""

    def record(self) -> str | dict[str, str]:
        """Returns what a store's settings say of the keys. Of a table the hash of its rows: a file may be moved."""
        return self.source if self.table is None else {"csv": canonical_hash(dict(self.table))[:16]}

    def key(self, name: str) -> str:
        """Returns the key of the image of this name.

        Raises:
            ArgumentError: the name has no folder, doesn't match, or is not in the table.
        """
        if self.table is not None:
            if name not in self.table:
                raise argument_error(
                    "groups",
                    expected=f"a row for every image in {self.source}",
                    got=f"none for {name!r}",
                    remedy="Add a row. The column image has names as the harvest gives them: paths below the folder of "
                    "images, with /.",
                )
            return self.table[name]
        if self.pattern is not None:
            return self._matched(self.pattern, name)
        folder = PurePosixPath(name).parent.as_posix()
        if folder == ".":
            raise argument_error(
                "groups",
                expected='every image in a folder of its own photograph, for "parent"',
                got=f"{name!r}, in none",
                remedy="Move the image into a folder, or give a regular expression or a CSV file.",
            )
        return folder

    def _matched(self, pattern: re.Pattern[str], name: str) -> str:
        match = pattern.search(name)
        key = match and match.group(min(pattern.groups, 1))
        if not key:
            what = "first group" if pattern.groups else "match"
            raise argument_error(
                "groups",
                expected=f"a regular expression whose {what} in every image's name is the key of a photograph",
                got=f"{pattern.pattern!r}, with none in {name!r}",
                remedy="Change the expression, or give a CSV file with the columns image and group.",
            )
        return key


def photograph_keys(groups: Groups) -> PhotographKeys | None:
    """Returns the rule that `groups` stands for; None if each image is a photograph of its own.

    Raises:
        ArgumentError: no such rule, an expression that doesn't compile, or a table that can't be read.
    """
    if groups is None:
        return None
    if not isinstance(groups, (str, os.PathLike)) or groups == "":
        raise argument_error(
            "groups", expected=_EXPECTED, got=groups, remedy="None: each image is a photograph of its own."
        )
    if groups == PARENT:
        return PhotographKeys()
    if isinstance(groups, os.PathLike) or groups.lower().endswith(".csv"):
        path = Path(groups)
        return PhotographKeys(table=_read_table(path), source=str(path))
    try:
        return PhotographKeys(pattern=re.compile(groups), source=groups)
    except re.error as error:
        raise argument_error(
            "groups",
            expected=_EXPECTED,
            got=f"{groups!r}, which is no regular expression ({error})",
            remedy="A path is read as a table if it ends in .csv.",
        ) from None


def _read_table(path: Path) -> dict[str, str]:
    """Returns the group of each image in a CSV file."""
    remedy = "The first line is image,group; the others have an image's name and the key of its photograph."
    if not path.is_file():
        raise argument_error("groups", expected="a CSV file", got=f"{str(path)!r}, which is none", remedy=remedy)
    table: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [column for column in _COLUMNS if column not in (reader.fieldnames or [])]
            if missing:
                got = f"{path}, which lacks {' and '.join(missing)}"
                raise argument_error("groups", expected="the columns image and group", got=got, remedy=remedy)
            for row in reader:
                image, key = row["image"], row["group"]
                if not image or not key or table.get(image, key) != key:
                    expected = "one image and one group in every row, and one group for every image"
                    got = f"{path}, line {reader.line_num}: image {image!r}, group {key!r}"
                    raise argument_error("groups", expected=expected, got=got, remedy=remedy)
                table[image] = key
    except (csv.Error, UnicodeDecodeError) as error:
        got = f"{path}, which can't be read ({error})"
        raise argument_error("groups", expected="a CSV file in UTF-8", got=got, remedy=remedy) from error
    return table
