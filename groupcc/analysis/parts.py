"""The parts of an atlas: what `analyze` says of every latent beside its symmetry and its family. One line a part.

A new part is one file and one line:

1. A file in the folder of its question (symmetry/, families/, evidence/) with a class derived from
   `groupcc.analysis.part.Part`.
2. A line in `PARTS` below.

`analyze` then computes the part and `Atlas.parts` holds it. The atlas's table has its columns, and the atlas's file its
tensors. The report says its notes. The command line has an option for it if it is computed on request.

This module imports none of them before one is asked for: the command line lists the parts without PyTorch.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from groupcc.analysis.part import Part

__all__ = ["PARTS", "Registration", "part_kind"]


@dataclass(frozen=True)
class Registration:
    """Where a part is: the class `kind` in `module` of this package.

    `on_request`: what it does, in the words of the command line's help, if it is computed only when asked for
    (`analyze(..., name=True)`, `--name`). It then needs orbits.
    """

    module: str
    kind: str
    on_request: str = ""


PARTS: dict[str, Registration] = {
    "evidence": Registration("evidence.evidence", "Evidence"),
    "contribution": Registration("evidence.contribution", "Contribution"),
    "scaling": Registration(
        "evidence.scaling", "Scaling", "measure on the orbits whether empty blocks are absent or were shrunk"
    ),
    "tuning": Registration("evidence.tuning", "Tuning"),
    "embedding": Registration("families.family_map", "Embedding"),
    "nulls": Registration("evidence.null_counts", "NullCounts"),
}
"""The parts by name, in the order of the table's columns."""


def part_kind(name: str) -> type[Part]:
    """Returns the class of a part; KeyError if there is none of that name."""
    registered = PARTS[name]
    kind: type[Part] = getattr(importlib.import_module(f"groupcc.analysis.{registered.module}"), registered.kind)
    return kind
