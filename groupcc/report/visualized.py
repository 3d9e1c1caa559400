"""The picture made by gradient ascent, on a latent's card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from groupcc.errors import argument_error
from groupcc.analysis.numbers import array, number
from groupcc.report.pictures import Patch, PatchBook

__all__ = ["Visualized", "visualized"]


@dataclass(frozen=True)
class Visualized:
    """A picture that was made to drive a latent, and how it compares with the photographs."""

    patch: Patch
    sentence: str


def visualized(visualization: Any | None, n_latents: int, patches: PatchBook) -> dict[int, Visualized]:
    """By latent, what `groupcc.visualize` returned; ArgumentError for latents that the atlas lacks."""
    found: dict[int, Visualized] = {}
    if visualization is None:
        return found
    if any(not 0 <= latent < n_latents for latent in visualization.latents):
        raise argument_error(
            "visualization",
            expected=f"latents of the atlas, 0 to {n_latents - 1}",
            got=visualization.latents,
            remedy="Visualise the crosscoder that the atlas was made of.",
        )
    pictures = (array(visualization.images).clip(0, 1) * 255).round().astype("uint8").transpose(0, 2, 3, 1)
    if pictures.shape[3] != 3:
        pictures = pictures.mean(3, keepdims=True).round().astype("uint8").repeat(3, axis=3)
    rows = zip(
        visualization.latents,
        pictures,
        array(visualization.pre_acts).tolist(),
        array(visualization.strongest).tolist(),
        array(visualization.beats_examples).tolist(),
        strict=True,
    )
    for latent, picture, reached, strongest, beats in rows:
        than = f"the strongest patch of the photographs gives it {number(strongest)}"
        sentence = f"Its pre-activation is {number(reached)}; {than}"
        sentence += "." if beats else ", more than this picture, which therefore says little."
        alt = f"Picture made to drive latent {latent}, pre-activation {number(reached)}"
        found[latent] = Visualized(Patch(patches.add(picture), alt), sentence)
    return found
