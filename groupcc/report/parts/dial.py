"""The dial of each latent that has poses: how often it fired in each, in a drawing and in words."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from groupcc.analysis import Dial, DialRing
from groupcc.groups import PlanarGroup
from groupcc.groups.planar import format_degrees
from groupcc.report.part import Page, ReportPart
from groupcc.report.pose_words import dial_sentence, gap_rule
from groupcc.report.svg import pose_dial, pose_dial_figure

__all__ = ["DialView", "Dials", "dial_view"]

RING_NAMES = ("Turned by", "Mirrored, then turned by")


@dataclass(frozen=True)
class DialView:
    """A latent's dial: a small figure, a large one that uses the small one's shapes, and the same in words.

    `counts`: for each ring its name and the firings pose by pose.
    """

    small: Markup
    large: Markup
    sentence: str
    counts: list[tuple[str, str]]
    has_gaps: bool


class Dials(ReportPart):
    """See the module. `views`: by latent, for those with more than one pose."""

    template = "dial.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        dials = ((latent, self.atlas.dial(latent)) for latent in page.ordered)
        views = {latent: dial_view(latent, dial, self.group) for latent, dial in dials if dial is not None}
        self.views = {latent: view for latent, view in views.items() if view is not None}
        self.gap_rule = gap_rule()

    @classmethod
    def of(cls, page: Page) -> Dials | None:
        part = cls(page)
        return part if part.views else None

    def thumb(self, latent: int) -> Markup:
        return self.views[latent].small if latent in self.views else Markup("")


def dial_view(latent: int, dial: Dial, group: PlanarGroup) -> DialView | None:
    """Returns the view of one dial; None for a single pose, of which there is nothing to draw."""
    if dial.kind == "one":
        return None
    sentence = dial_sentence(dial)
    cells = Markup('<g id="dial-{}">{}</g>').format(latent, pose_dial(dial, group))
    label = f"Poses in which latent {latent} fired. {sentence}"
    return DialView(
        small=pose_dial_figure(cells, f"Dial of latent {latent}: {sentence}"),
        large=pose_dial_figure(Markup('<use href="#dial-{}"/>').format(latent), label, large=True),
        sentence=sentence,
        counts=[(name, _counts(ring)) for name, ring in zip(RING_NAMES, dial.rings, strict=False)],
        has_gaps=dial.kind == "gaps",
    )


def _counts(ring: DialRing) -> str:
    return ", ".join(f"{format_degrees(i * ring.step)}: {count:,}" for i, count in enumerate(ring.counts.tolist()))
