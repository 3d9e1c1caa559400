"""Examples for training: in an order fixed by the seed, translated at random."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import torch

from groupcc.data import Orbits
from groupcc.ops.memory import recycled

__all__ = [
    "batch_indices",
    "describe_examples",
    "scaled",
    "translate_at_random",
]


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


def scaled(acts: torch.Tensor, scale: float) -> torch.Tensor:
    """acts times a number, in memory of its own."""
    out = recycled(tuple(acts.shape), acts.dtype) if acts.device.type == "cpu" else None
    return torch.mul(acts, scale, out=out)


def describe_examples(orbits: Orbits, indices: torch.Tensor) -> str:
    """`examples 3, 17, 5 … (images a.png, b.png …)`, for messages."""
    shown = ", ".join(str(int(i)) for i in indices[:5]) + (", …" if len(indices) > 5 else "")
    names = getattr(orbits, "image_names", None)
    if not names:
        return f"examples {shown}"
    images = list(dict.fromkeys(cast("list[str]", names)[int(orbits.image_ids[i])] for i in indices[:50]))
    return f"examples {shown} (images {', '.join(images[:5])}{', …' if len(images) > 5 else ''})"
