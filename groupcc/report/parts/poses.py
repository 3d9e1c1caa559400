"""Latents that have poses: how many distinct ones, and how much their poses don't share."""

from __future__ import annotations

from groupcc.analysis.numbers import percent
from groupcc.report.part import Page, ReportPart

__all__ = ["Poses"]


class Poses(ReportPart):
    """See the module."""

    template = "poses.html"

    @classmethod
    def of(cls, page: Page) -> Poses | None:
        return cls(page) if page.reader.atlas.has_poses else None

    @property
    def residual(self) -> bool:
        """Whether the poses of a latent may differ by more than a translation."""
        return self.atlas.has_residuals

    def atoms(self, latent: int) -> int:
        """Returns the number of distinct poses."""
        assert self.atlas.families.atoms is not None
        return int(self.atlas.families.atoms[latent])

    def not_shared(self, latent: int) -> str:
        """Returns the share of a latent's power that its poses don't share; empty if they share all."""
        share = self.atlas.residual_share
        return percent(float(share[latent])) if self.residual and share is not None else ""
