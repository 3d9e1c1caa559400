"""Writes page.txt anew: python tests/report/golden/rewrite.py. Look at the difference before you commit it."""

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from helpers.golden import GOLDEN, golden_text  # noqa: E402

with tempfile.TemporaryDirectory() as folder:
    GOLDEN.write_text(golden_text(Path(folder)), encoding="utf-8")
