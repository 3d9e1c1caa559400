"""Rows of plain values as files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groupcc.errors import argument_error
from groupcc.files import atomic_write

__all__ = ["write_rows"]


def write_rows(path: str | Path, rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> Path:
    """Writes rows that all have `columns` as .csv or .json, by the suffix, in one rename."""
    path = Path(path)
    if path.suffix.lower() == ".json":
        atomic_write(path, json.dumps(list(rows), indent=1, allow_nan=False) + "\n")
    elif path.suffix.lower() == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        atomic_write(path, text.getvalue())
    else:
        raise argument_error(
            "path", expected="a name that ends in .csv or .json", got=str(path), remedy="The suffix decides."
        )
    return path
