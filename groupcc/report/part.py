"""ReportPart: what every part of the page answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.environment import TemplateModule
from markupsafe import Markup

from groupcc.report.family_views import FamilyView, family_views
from groupcc.report.pictures import PatchBook
from groupcc.report.reader import Reader, select_latents

if TYPE_CHECKING:
    from groupcc.causal import CausalCheck
    from groupcc.visualization import Visualization

__all__ = ["Page", "ReportPart", "environment"]

ICONS = {
    "invariant": "circle",
    "90": "cross",
    "180": "line",
    "other-rotation": "star",
    "mirror": "curve",
    "none": "spiral",
}
"""Names of the drawings that stand for kinds."""


@dataclass(eq=False)
class Page:
    """What a page is made from: an atlas, its patches, and what `write_report` was given.

    `detailed`: the latents that get patches and a block map. `facts`: provenance. `table`: the address of the full
    table beside the page, if it is there. `parts`: what fills the page's slots.
    """

    reader: Reader
    patches: PatchBook
    facts: Mapping[str, Any]
    metrics: Mapping[str, Any]
    baseline: Sequence[Mapping[str, Any]]
    visualization: Visualization | None
    causal: CausalCheck | None
    limits: Mapping[str, int]
    table: str | None
    parts: list[ReportPart] = field(default_factory=list)

    @cached_property
    def ordered(self) -> list[int]:
        """Every live latent, in the order of the page."""
        return self.reader.live

    @cached_property
    def detailed(self) -> frozenset[int]:
        return frozenset(select_latents(self.reader.kinds, self.reader.frequency, self.limits["max_latents"]))

    @cached_property
    def families(self) -> list[FamilyView]:
        """The families that have a card."""
        most, members = self.limits["max_families"], self.limits["max_latents_per_family"]
        return family_views(self.reader, self.patches, limit=most, max_members=members)

    @cached_property
    def linked(self) -> frozenset[int]:
        """The numbers of the families that have a card."""
        return frozenset(family.family for family in self.families)

    def show(self, slot: str, *of: int | FamilyView) -> Markup:
        """Returns what the parts put in a slot."""
        return Markup("").join(part.show(slot, *of) for part in self.parts)


class ReportPart:
    """One part of the page: what it says of the atlas, in the slots of the page's template and of the latents' cards.

    Registered in `groupcc.report.parts.PARTS`. What fills a slot is a macro of the part's template `parts/<template>`,
    called with the part and what the slot is of; or a method of that name, which returns Markup. The slots are

    - of the page: `banner`, `headline`, `counts`, `map`, `nav`, `symmetry_words` and `words` (the glossary),
      `families_lead`, `latents_lead`, `section`;
    - of a family's card: `family`;
    - of a latent's card: `thumb`, `pill`, `fact`, `estimates`, `block`.
    """

    template: ClassVar[str] = ""

    def __init__(self, page: Page) -> None:
        self.page, self.reader = page, page.reader
        self.atlas, self.group = page.reader.atlas, page.reader.group

    @classmethod
    def of(cls, page: Page) -> ReportPart | None:
        """Returns the part, or None if the atlas has nothing for it."""
        return cls(page)

    def show(self, slot: str, *of: int | FamilyView) -> Markup:
        """Returns what stands in a slot, nothing if the part has neither a macro nor a method of that name."""
        macro = getattr(_macros(self.template), slot, None) if self.template else None
        if macro is not None:
            return Markup(macro(self, *of))
        method = getattr(self, slot, None)
        return Markup("") if method is None else Markup(method(*of))


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Returns the environment of all templates; values are escaped, and missing ones are errors."""
    made = Environment(
        loader=PackageLoader("groupcc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["icon_names"] = ICONS
    return made


@lru_cache
def _macros(template: str) -> TemplateModule:
    return environment().get_template(f"parts/{template}").module
