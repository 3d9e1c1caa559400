"""Part: what every part of an atlas answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import torch

__all__ = ["TOPICS", "Note", "Part", "filled"]

Topic = Literal["data", "certainty", "shape", "worth"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
"""What a note is about, in the order of the page: what the data holds of the latent, how certain its symmetry is, what
its shape does when it is turned or mirrored, and whether the latent is needed."""


class Note(NamedTuple):
    """A sentence on a latent. If it names another `latent`, `{}` stands in the text for the words "latent 7"."""

    topic: Topic
    text: str
    latent: int | None = None


class Part:
    """A part of an atlas: something that is known of every latent. Registered in `groupcc.analysis.parts.PARTS`.

    The parameters of `measure` and of `from_tensors` are their inputs. Each is named after what it reads: an attribute
    of `groupcc.analysis.run.Analysis` (of the `Atlas` that is being loaded, for `from_tensors`), or another part.
    Inputs are computed when they are first asked for, so the order of the parts says nothing about their computation.

    Example: `measure(cls, activity, tuning)` is called with `Analysis.activity` and with the part "tuning".
    """

    @classmethod
    def measure(cls, *args: Any, **kwargs: Any) -> Part | None:
        """Returns the part, or None if it cannot be measured: it needs orbits and there are none."""
        raise NotImplementedError

    def columns(self, latent: int) -> dict[str, Any]:
        """Returns what the atlas's table says of a latent: plain values by column, None if unknown. The same columns
        for each latent."""
        return {}

    def notes(self, latent: int) -> list[Note]:
        """Returns what the report says of a latent in sentences."""
        return []

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns what the atlas's file holds, by names that no other part has."""
        raise NotImplementedError

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> Part | None:
        """Returns the part from what `tensors` returned, or None if it is not there: files from before it."""
        raise NotImplementedError


def filled(function: Callable[..., Any], ask: Callable[[str], Any]) -> Any:
    """Returns the function's result for arguments that are asked for by the names of its parameters."""
    return function(**{name: ask(name) for name in inspect.signature(function).parameters})
