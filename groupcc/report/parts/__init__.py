"""The parts of the page, each registered once, in the order in which they fill a slot.

A new part is two files and one line:

1. `report/parts/<name>.py`: a class derived from `groupcc.report.part.ReportPart`. Its `of` returns None if the atlas
   has nothing for the part. Its methods return what the template shows.
2. `report/templates/parts/<name>.html`: a macro for each slot that the part fills; `ReportPart` lists the slots.
3. A line in `PARTS` below.

The page then has it. Its words belong on a golden page too: the test of these names a part that is on none.
"""

from __future__ import annotations

from groupcc.report.part import Page, ReportPart
from groupcc.report.parts.baseline import Baseline
from groupcc.report.parts.causal import Causal
from groupcc.report.parts.counts import Counts
from groupcc.report.parts.dial import Dials
from groupcc.report.parts.evidence import EvidencePart
from groupcc.report.parts.families import Families, Shapes
from groupcc.report.parts.latents import Latents
from groupcc.report.parts.map import Map
from groupcc.report.parts.metrics import Metrics
from groupcc.report.parts.nulls import NullsPart
from groupcc.report.parts.patches import Patches
from groupcc.report.parts.poses import Poses
from groupcc.report.parts.provenance import Provenance
from groupcc.report.parts.quality import QualityPart
from groupcc.report.parts.visualization import Made

__all__ = ["PARTS", "page_parts"]

PARTS: list[type[ReportPart]] = [
    QualityPart,
    Counts,
    EvidencePart,
    Map,
    Poses,
    Dials,
    Families,
    Shapes,
    Causal,
    Made,
    Patches,
    Latents,
    NullsPart,
    Metrics,
    Baseline,
    Provenance,
]
"""The classes of the parts, in the order of the page."""


def page_parts(page: Page) -> list[ReportPart]:
    """Returns the parts for which there is something to show."""
    parts = (kind.of(page) for kind in PARTS)
    return [part for part in parts if part is not None]
