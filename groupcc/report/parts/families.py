"""The section of families, and of latents that have poses the section of shapes learned more than once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from groupcc.analysis import Coverage
from groupcc.analysis.numbers import count_noun, listed, percent, two_decimals
from groupcc.groups.planar import format_degrees
from groupcc.report.family_views import FamilyView
from groupcc.report.part import Page, ReportPart
from groupcc.report.words import family_sizes

__all__ = ["Families", "Shapes", "family_notes"]

NAMED_GAPS = 3
"""Gaps of a family that its sentence names."""


class Families(ReportPart):
    """Each family with its members; the gaps in its orientations, and whether the members' poses fit together."""

    template = "families.html"
    of_poses: ClassVar[bool] = False
    title: ClassVar[str] = "Families"
    name: ClassVar[str] = "family"
    link_words: ClassVar[str] = "Family"

    @classmethod
    def of(cls, page: Page) -> Families | None:
        return cls(page) if page.reader.atlas.has_poses == cls.of_poses else None

    @property
    def threshold(self) -> str:
        return two_decimals(self.atlas.families.threshold)

    @property
    def left_out(self) -> int:
        """Families that are not shown."""
        return len(family_sizes(self.atlas)) - len(self.page.families)

    def link_to(self, latent: int) -> int | None:
        """Returns the family of a latent if it has a card on the page."""
        family = int(self.atlas.searched.labels[latent])
        return family if family in self.page.linked else None

    def notes(self, family: FamilyView) -> list[str]:
        """Returns sentences on a family."""
        error = self.reader.table[family.reference].get("cycle_error")
        return family_notes(self.atlas.coverage(family.family), error, self.atlas.family_types(family.family))


class Shapes(Families):
    """Latents that have poses and learned one shape, with the fields of `Families`."""

    of_poses = True
    title = "Shapes learned more than once"
    name = "shape"
    link_words = "Learned more than once: shape"

    def notes(self, family: FamilyView) -> list[str]:
        return []


def family_notes(
    coverage: Coverage | None, cycle_error: float | None, types: Mapping[str, int] | None = None
) -> list[str]:
    """Returns sentences on a family: stabilizers that differ, orientations that no member detects, and whether the
    members' poses fit. `types`: see `Atlas.family_types`."""
    notes = []
    if types and len(types) > 1:
        counted = listed([f"{count} {name}" for name, count in types.items()])
        notes.append(f"Not one shape, or some labels are wrong: of its stated members {counted}.")
    if coverage is not None and coverage.n_poses > 1:
        gaps = coverage.gaps
        if not gaps:
            notes.append("Every orientation is near enough to a member’s to be detected.")
        elif coverage.covered > 0:
            named = [_gap(*gap) for gap in gaps[:NAMED_GAPS]]
            more = f" and {count_noun(len(gaps) - NAMED_GAPS, 'more gap')}" if len(gaps) > NAMED_GAPS else ""
            notes.append(f"No member detects it {', '.join(named)}{more}.")
    if cycle_error is not None and cycle_error == cycle_error:
        fits = "fit together" if cycle_error == 0 else f"disagree in {percent(cycle_error)} of its pairs"
        notes.append(f"The members’ poses {fits}.")
    return notes


def _gap(mirrored: bool, first: float, last: float) -> str:
    first_words, last_words = (f"+{format_degrees(turn)}" if turn else "0°" for turn in (first, last))
    turn = f"at {first_words}" if first == last else f"from {first_words} to {last_words}"
    return f"mirrored and {turn}" if mirrored else turn
