"""Whether a dictionary describes its layer: what is measured when training ends, and what is said if it does not."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from groupcc.errors import QualityWarning

__all__ = ["Quality", "warn_of_doubts"]

WORST_FVU = 0.7
"""A dictionary that misses more than this share of the variance on held-out images does not describe the layer."""

MOST_DEAD = 0.3
"""With more dead latents than this share, the dictionary is much smaller than it was meant to be."""

WORST_RATIO = 1.5
"""If held-out FVU is larger than this times training FVU, the dictionary describes its images and not the layer."""

CLEAR_GAP = 0.1
"""A difference of FVU below this is no matter."""

FEWEST_EXAMPLES = 100
"""Examples in which each latent is active, on average over training: with fewer, few latents can be learned."""

FEWEST_PHOTOGRAPHS = 10
"""With fewer photographs to train on, what is found is about these photographs."""


@dataclass(frozen=True)
class Quality:
    """What says whether a dictionary can be read; None: unknown.

    - `held_out_fvu`: FVU on photographs that training has not seen; `training_fvu`: on a sample of those it has.
    - `dead_fraction`: share of latents that fired for no example of that sample.
    - `examples_a_latent`: examples seen, times active latents in each, over latents.
    - `photographs`, `held_out_photographs`: how many were trained on and held out.
    """

    held_out_fvu: float | None = None
    training_fvu: float | None = None
    dead_fraction: float | None = None
    examples_a_latent: float | None = None
    photographs: int | None = None
    held_out_photographs: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values, as files hold them."""
        return asdict(self)

    @classmethod
    def from_provenance(cls, provenance: Mapping[str, Any]) -> Quality:
        """Returns what training recorded; nothing is known of crosscoders from before it did, and of made ones."""
        recorded = provenance.get("quality") or {}
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in recorded.items() if name in known})

    @property
    def doubts(self) -> list[str]:
        """Why the dictionary should not be read, each with its remedy; empty if nothing speaks against it."""
        return [
            text
            for text in (
                self._of_fvu(),
                self._of_dead(),
                self._of_overfitting(),
                self._of_examples(),
                self._of_photographs(),
            )
            if text
        ]

    def _of_fvu(self) -> str:
        seen = self.held_out_fvu is not None
        fvu = self.held_out_fvu if seen else self.training_fvu
        if fvu is None or fvu <= WORST_FVU:
            return ""
        where = "held-out photographs" if seen else "its training examples, and none were held out"
        return (
            f"It misses {_percent(fvu)} of the variance on {where}: it does not describe the layer. Train longer "
            "(steps, --steps), on more photographs, with more active latents (k, --k) or augment=True (--augment)."
        )

    def _of_dead(self) -> str:
        if self.dead_fraction is None or self.dead_fraction <= MOST_DEAD:
            return ""
        return (
            f"{_percent(self.dead_fraction)} of the latents are dead. Let them start anew (resample_every, "
            "--resample-every), lower the learning rate (lr, --lr), or ask for fewer latents (n_latents, --latents)."
        )

    def _of_overfitting(self) -> str:
        held_out, training = self.held_out_fvu, self.training_fvu
        if held_out is None or training is None:
            return ""
        if held_out <= WORST_RATIO * training or held_out - training <= CLEAR_GAP:
            return ""
        return (
            f"FVU is {held_out:.3f} on held-out photographs and {training:.3f} on its own: it describes these "
            "photographs rather than the layer. Use more photographs, augment=True (--augment), or fewer latents "
            "(n_latents, --latents)."
        )

    def _of_examples(self) -> str:
        count = self.examples_a_latent
        if count is None or count >= FEWEST_EXAMPLES:
            return ""
        return (
            f"A latent was active in {count:.0f} examples on average: too few to be learned. Train longer (steps, "
            "--steps; batch_size, --batch-size), or ask for fewer latents (n_latents, --latents)."
        )

    def _of_photographs(self) -> str:
        count = self.photographs
        if count is None or count >= FEWEST_PHOTOGRAPHS:
            return ""
        return (
            f"It has seen {count} photograph{'' if count == 1 else 's'}: what is found is about "
            f"{'it' if count == 1 else 'them'}. Use at least {FEWEST_PHOTOGRAPHS}, better hundreds."
        )


def warn_of_doubts(quality: Quality, where: str, stacklevel: int = 3) -> None:
    """Gives one `QualityWarning` for each doubt. `where`: the name of the function that gives it."""
    for doubt in quality.doubts:
        warnings.warn(f"{where}: {doubt}", QualityWarning, stacklevel=stacklevel + 1)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
