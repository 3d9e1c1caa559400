"""The environment of a Python process that imports groupcc and these helpers as this one does."""

import os
from pathlib import Path

import groupcc

TESTS = Path(__file__).parents[1]


def environment(**more: str) -> dict[str, str]:
    """os.environ with both on PYTHONPATH, and `more`."""
    folders = [str(TESTS), str(Path(groupcc.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, folders))} | more
