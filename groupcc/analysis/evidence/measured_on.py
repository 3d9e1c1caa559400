"""What latents' activations are measured on: images that training has not seen, if they are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch

from groupcc.analysis.numbers import count_noun
from groupcc.data import Orbits, as_orbits, is_orbits
from groupcc.data.splits import held_out_examples
from groupcc.errors import argument_error
from groupcc.models import GroupCrosscoder

__all__ = ["MeasuredOn", "Seen", "choose_examples"]

Seen = Literal["held-out", "training", "unknown"]


@dataclass(frozen=True)
class MeasuredOn:
    """On what an estimate was measured: so many `images`, in `examples` orbits.

    `seen`: "held-out" (training saw none of the images), "training" (it held out none), "unknown".
    """

    seen: Seen
    images: int
    examples: int

    def __str__(self) -> str:
        words = {"held-out": "held out from training", "training": "all seen in training"}
        return f"{count_noun(self.images, 'image')}, {words.get(self.seen, 'seen in training or not: unknown')}"

    def tensor(self) -> torch.Tensor:
        """Returns int64 [3]: the place of `seen` among its values, `images`, `examples`."""
        return torch.tensor([get_args(Seen).index(self.seen), self.images, self.examples])

    @classmethod
    def from_tensor(cls, values: torch.Tensor) -> MeasuredOn:
        """Returns what `tensor` was made from."""
        seen, images, examples = values.tolist()
        return cls(get_args(Seen)[seen], images, examples)


def choose_examples(
    crosscoder: GroupCrosscoder, orbits: Orbits, held_out: Any, most: int
) -> tuple[Orbits, torch.Tensor, MeasuredOn]:
    """Returns the orbits to measure activations on, which of their examples (int64, at most `most`), and what they are.

    `held_out`: orbits, or indices of examples of `orbits`, that training has not seen. None takes the examples that the
    crosscoder's provenance says were held out (`held_out_examples`), or all if it doesn't say. They come in random
    order, since neighbouring examples are often of one image. The order depends on their number alone.

    Raises:
        ArgumentError: indices that are none.
    """
    seen: Seen = "held-out"
    if held_out is None:
        chosen = held_out_examples(crosscoder.provenance, orbits)
        if chosen is None or len(chosen) == 0:
            seen = "unknown" if chosen is None else "training"
            chosen = torch.arange(len(orbits))
    elif is_orbits(held_out):
        orbits = as_orbits(held_out, crosscoder.group.order, crosscoder.config.d_in)
        chosen = torch.arange(len(orbits))
    else:
        chosen = _indices(held_out, len(orbits))
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))[:most]]
    return orbits, chosen, MeasuredOn(seen, len(orbits.image_ids.cpu()[chosen].unique()), len(chosen))


def _indices(held_out: Any, n: int) -> torch.Tensor:
    try:
        chosen = torch.as_tensor(list(held_out) if isinstance(held_out, range) else held_out).cpu()
    except (TypeError, ValueError, RuntimeError):
        chosen = torch.zeros(0)
    whole = chosen.ndim == 1 and not chosen.is_floating_point() and chosen.dtype != torch.bool
    if not whole or len(chosen) == 0 or int(chosen.min()) < 0 or int(chosen.max()) >= n:
        raise argument_error(
            "held_out",
            expected=f"orbits, or one or more indices of examples from 0 to {n - 1}",
            got=cast("object", held_out),
            remedy="Leave it out for what the crosscoder's training held out.",
        )
    return chosen.long().unique()
