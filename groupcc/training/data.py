"""Examples for training: in an order that the seed fixes, translated at random."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import torch

from groupcc.data import Orbits
from groupcc.groups import Group
from groupcc.groups.translate import translation_table
from groupcc.ops.memory import recycled
from groupcc.training.config import TrainConfig

__all__ = [
    "Batches",
    "batch_indices",
    "describe_examples",
    "translate_at_random",
]


class Batches:
    """What training sees: (a − centre)·scale of examples `indices` of `orbits`, on the centre's device, translated at
    random if the settings say so. Everything follows from the settings' seed and the number of the step."""

    def __init__(
        self,
        orbits: Orbits,
        indices: torch.Tensor,
        config: TrainConfig,
        group: Group,
        scale: float,
        centre_GD: torch.Tensor,
    ) -> None:
        self.orbits, self.indices, self.config, self.scale = orbits, indices, config, scale
        # `scale` is a power of two: a·scale − centre·scale is (a − centre)·scale to the bit.
        self.shift_GD = centre_GD * scale
        self.right_translation = translation_table(group)

    def at_step(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns which examples step 0, 1, … has, int64 [N], and their activations [N, G, D]."""
        examples = batch_indices(self.indices, self.config.batch_size, self.config.seed, step)
        # Ascending reads are kinder to a store on disk; the order inside a batch means nothing.
        examples = examples.sort().values
        return examples, self.take(examples, step)

    def take(self, examples: torch.Tensor, step: int) -> torch.Tensor:
        """Returns the activations of these examples as training sees them in this step."""
        acts = self.orbits.at_step(step).take_scaled(examples, self.scale).to(self.shift_GD.device)
        acts.sub_(self.shift_GD)
        if self.config.augment:
            acts = translate_at_random(acts, self.right_translation, self.config.seed, step)
        return acts

    def drawn(self, count: int, step: int) -> Iterator[torch.Tensor]:
        """Yields the activations of up to `count` batches of examples that (seed, step) fix."""
        generator = torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) % 2**63)
        order = torch.randperm(len(self.indices), generator=generator)
        some = self.indices[order[: count * self.config.batch_size]]
        for examples in some.sort().values.split(self.config.batch_size):
            yield self.take(examples, step)


def batch_indices(indices: torch.Tensor, batch_size: int, seed: int, step: int) -> torch.Tensor:
    """The examples of batch `step`: consecutive slices of one permutation an epoch, which (seed, epoch) fix.

    A batch that reaches past an epoch's end goes on in the next, so that every batch is full.
    """
    n = len(indices)
    start = step * batch_size
    parts = []
    while start < (step + 1) * batch_size:
        epoch, offset = divmod(start, n)
        stop = min((step + 1) * batch_size - epoch * n, n)
        parts.append(_epoch_order(n, seed, epoch)[offset:stop])
        start = epoch * n + stop
    return indices[torch.cat(parts)]


@lru_cache(maxsize=2)  # a batch at an epoch's end reads two
def _epoch_order(n: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63))


def translate_at_random(acts_NGD: torch.Tensor, right_translation: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """R_h a of each example, (R_h a)_g = a_{gh}, with h uniform on the group; (seed, step) fix the draw."""
    N, G, _ = acts_NGD.shape
    generator = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    h_N = torch.randint(G, (N,), generator=generator)
    source_NG = right_translation[h_N] + G * torch.arange(N)[:, None]
    out = recycled(tuple(acts_NGD.shape), acts_NGD.dtype) if acts_NGD.device.type == "cpu" else None
    blocks = acts_NGD.flatten(0, 1)
    chosen = source_NG.flatten().to(blocks.device)
    return torch.index_select(blocks, 0, chosen, out=None if out is None else out.flatten(0, 1)).view_as(acts_NGD)


def describe_examples(orbits: Orbits, indices: torch.Tensor) -> str:
    """`examples 3, 17, 5 … (images a.png, b.png …)`, for messages."""
    shown = ", ".join(str(int(i)) for i in indices[:5]) + (", …" if len(indices) > 5 else "")
    names = orbits.image_names
    if not names:
        return f"examples {shown}"
    images = list(dict.fromkeys(names[int(orbits.image_ids[i])] for i in indices[:50]))
    return f"examples {shown} (images {', '.join(images[:5])}{', …' if len(images) > 5 else ''})"
