"""Orbits for training: a store or a tensor behind one face, split by image, in an order fixed by the seed."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Protocol, cast, runtime_checkable

import torch

from groupcc.errors import argument_error

__all__ = [
    "Orbits",
    "TensorOrbits",
    "as_orbits",
    "batch_indices",
    "describe_examples",
    "fingerprint",
    "split_by_image",
    "translate_at_random",
]


_OPEN = "groupcc.OrbitStore.open(directory) reads a store."
_REMEDIES = {
    "ndarray": "torch.from_numpy(array) makes a tensor.",
    "str": _OPEN,
    "PosixPath": _OPEN,
    "WindowsPath": _OPEN,
}


@runtime_checkable
class Orbits(Protocol):
    """What training needs of an orbit store."""

    image_ids: torch.Tensor
    """int64 [M]: the image each example comes from."""

    def __len__(self) -> int:
        """Number of examples M."""
        ...

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        """fp32 [n, G, D] of the examples at int64 [n]."""
        ...


class TensorOrbits:
    """A tensor [M, G, D] as orbits; every example counts as an image of its own."""

    def __init__(self, acts: torch.Tensor) -> None:
        self.acts = acts
        self.image_ids = torch.arange(len(acts))

    def __len__(self) -> int:
        return len(self.acts)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.acts[indices.to(self.acts.device)].float()


def as_orbits(orbits: object, G: int, D: int) -> Orbits:
    """`orbits` (a store or a tensor [M, G, D]) as `Orbits`, its shape checked against the crosscoder's."""
    if isinstance(orbits, torch.Tensor):
        if orbits.dim() != 3 or orbits.shape[1:] != (G, D) or len(orbits) == 0 or not orbits.is_floating_point():
            raise argument_error(
                "orbits",
                expected=f"a floating-point tensor [M, G, D] = [M >= 1, {G}, {D}]",
                got=f"{orbits.dtype} of shape {tuple(orbits.shape)}",
                remedy="Use the group and the layer that the crosscoder is configured for.",
            )
        return TensorOrbits(orbits.detach())
    if not isinstance(orbits, Orbits):
        raise argument_error(
            "orbits",
            expected="an orbit store or a tensor [M, G, D]",
            got=type(orbits).__name__,
            remedy=_REMEDIES.get(type(orbits).__name__, "groupcc.harvest makes a store."),
        )
    if len(orbits) == 0:
        raise argument_error("orbits", expected="at least one example", got="none", remedy="Harvest some images first.")
    first = orbits.take(torch.zeros(1, dtype=torch.int64))
    if first.shape[1:] != (G, D):
        raise argument_error(
            "orbits",
            expected=f"examples [G, D] = [{G}, {D}]",
            got=f"{tuple(first.shape[1:])}",
            remedy="Use the group and the layer that the crosscoder is configured for.",
        )
    return orbits


def split_by_image(orbits: Orbits, held_out: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(training, held-out) example indices, ascending; all examples of an image fall on one side.

    At least one image is held out where `held_out` > 0, and at least one is left.
    """
    images = orbits.image_ids.unique()
    if held_out == 0:
        return torch.arange(len(orbits)), torch.arange(0)
    if len(images) < 2:
        raise argument_error(
            "held_out",
            expected="0 where all examples come from one image",
            got=held_out,
            remedy="Set held_out=0, or harvest more images.",
        )
    count = min(max(round(held_out * len(images)), 1), len(images) - 1)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    is_held_out = torch.isin(orbits.image_ids, images[order[:count]])
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()


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
    source_NG = right_translation[h_N].to(acts_NGD.device)
    return acts_NGD[torch.arange(N, device=acts_NGD.device)[:, None], source_NG]


def fingerprint(orbits: Orbits) -> str:
    """Hex hash of the data's size, its image of each example, and 64 examples spread over it."""
    n = len(orbits)
    probes = torch.linspace(0, n - 1, min(n, 64), dtype=torch.float64).long()
    digest = hashlib.sha256(str(n).encode())
    digest.update(orbits.image_ids.numpy().tobytes())
    digest.update(orbits.take(probes).cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def describe_examples(orbits: Orbits, indices: torch.Tensor) -> str:
    """`examples 3, 17, 5 … (images a.png, b.png …)`, for messages."""
    shown = ", ".join(str(int(i)) for i in indices[:5]) + (", …" if len(indices) > 5 else "")
    names = getattr(orbits, "image_names", None)
    if not names:
        return f"examples {shown}"
    images = list(dict.fromkeys(cast("list[str]", names)[int(orbits.image_ids[i])] for i in indices[:50]))
    return f"examples {shown} (images {', '.join(images[:5])}{', …' if len(images) > 5 else ''})"
