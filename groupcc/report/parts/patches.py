"""A latent's strongest patches: as in the photographs, turned back by its poses, and as the network saw them."""

from __future__ import annotations

from dataclasses import dataclass

from groupcc.analysis.numbers import two_decimals
from groupcc.report.part import Page, ReportPart
from groupcc.report.pictures import Patch, element_words, telling_elements
from groupcc.report.svg import level, level_class

__all__ = ["Patches", "Transformed"]

FIRST_PATCHES = 3
"""Patches that show before a latent is opened."""


@dataclass(frozen=True)
class Transformed:
    """The strongest example under one element, with what the dictionary says of that element."""

    patch: Patch
    correlation: str
    swatch: str
    strength: str


class Patches(ReportPart):
    """See the module."""

    template = "patches.html"

    @classmethod
    def of(cls, page: Page) -> Patches | None:
        return cls(page) if page.patches else None

    def examples(self, latent: int) -> list[tuple[int, float]]:
        """Returns the examples of a latent that is shown with patches, none for another one."""
        limit = self.page.limits["max_patches"] if latent in self.page.detailed else 0
        return self.page.patches.examples(latent, limit)

    def first(self, latent: int) -> list[Patch]:
        """Returns the patches beside a latent's name."""
        return [self.page.patches.upright(*example) for example in self.examples(latent)[:FIRST_PATCHES]]

    def more(self, latent: int) -> list[Patch]:
        """Returns the other ones."""
        return [self.page.patches.upright(*example) for example in self.examples(latent)[FIRST_PATCHES:]]

    def turned_back(self, latent: int) -> list[Patch]:
        """Returns the patches, each turned back by the pose in which the latent is active there; none without poses."""
        poses = self.page.patches.poses(latent)
        return [
            self.page.patches.transformed(example, int(self.group.inverse[pose]), "")
            for (example, _), pose in zip(self.examples(latent), poses, strict=False)
        ]

    def transformed(self, latent: int) -> list[Transformed]:
        """Returns the strongest patch under a few elements."""
        examples, axes, norms = self.examples(latent), self.reader.axes(latent), self.reader.norms[latent]
        top = float(norms.max(initial=0.0)) or 1.0
        shown = []
        for g in telling_elements(self.group, axes[0] if axes else None) if examples else []:
            value = float(self.reader.correlation[latent, g])
            patch = self.page.patches.transformed(examples[0][0], g, element_words(self.group, g))
            shown.append(
                Transformed(patch, two_decimals(value), level_class(level(value)), two_decimals(norms[g] / top))
            )
        return shown
