"""The picture made by gradient ascent, on a latent's card."""

from __future__ import annotations

from dataclasses import dataclass

from groupcc.analysis.numbers import number
from groupcc.errors import argument_error
from groupcc.report.part import Page, ReportPart
from groupcc.report.pictures import Patch

__all__ = ["Made", "MadePicture"]


@dataclass(frozen=True)
class MadePicture:
    """A picture that was made to drive a latent, and how it compares with the photographs."""

    patch: Patch
    sentence: str


class Made(ReportPart):
    """See the module. `pictures`: by latent, what `groupcc.visualize` returned.

    Raises:
        ArgumentError: pictures of latents that the atlas lacks.
    """

    template = "visualization.html"

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        given, n_latents = page.visualization, self.atlas.n_latents
        assert given is not None
        if any(not 0 <= latent < n_latents for latent in given.latents):
            raise argument_error(
                "visualization",
                expected=f"latents of the atlas, 0 to {n_latents - 1}",
                got=given.latents,
                remedy="Visualise the crosscoder that the atlas was made of.",
            )
        images = (given.images.numpy().clip(0, 1) * 255).round().astype("uint8").transpose(0, 2, 3, 1)
        if images.shape[3] != 3:
            images = images.mean(3, keepdims=True).round().astype("uint8").repeat(3, axis=3)
        numbers = (values.tolist() for values in (given.pre_acts, given.strongest, given.beats_examples))
        self.pictures = {}
        for latent, image, reached, strongest, beats in zip(given.latents, images, *numbers, strict=True):
            than = f"the strongest patch of the photographs gives it {number(strongest)}"
            sentence = f"Its pre-activation is {number(reached)}; {than}"
            sentence += "." if beats else ", more than this picture, which therefore says little."
            alt = f"Picture made to drive latent {latent}, pre-activation {number(reached)}"
            self.pictures[latent] = MadePicture(Patch(page.patches.add(image), alt), sentence)

    @classmethod
    def of(cls, page: Page) -> Made | None:
        return None if page.visualization is None else cls(page)
