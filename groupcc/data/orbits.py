"""Orbits to read examples from: a store or a tensor behind one face."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from groupcc.errors import argument_error
from groupcc.ops.memory import take_scaled

__all__ = ["Orbits", "TensorOrbits", "as_orbits"]

_OPEN = "groupcc.OrbitStore.open(directory) reads a store."
_REMEDIES = {
    "ndarray": "torch.from_numpy(array) makes a tensor.",
    "str": _OPEN,
    "PosixPath": _OPEN,
    "WindowsPath": _OPEN,
}


@runtime_checkable
class Orbits(Protocol):
    """What training and analysis need of an orbit store."""

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
        return self._taken(indices, 1.0)

    def take_scaled(self, indices: torch.Tensor, factor: float) -> torch.Tensor:
        """`take` times a number: what a step of training reads."""
        return self._taken(indices, factor)

    def _taken(self, indices: torch.Tensor, factor: float) -> torch.Tensor:
        indices = indices.to(self.acts.device)
        if self.acts.device.type != "cpu" or self.acts.dtype != torch.float32:
            return self.acts[indices].float() * factor
        return take_scaled(self.acts, indices, factor)


def as_orbits(orbits: object, G: int, D: int) -> Orbits:
    """`orbits` (a store or a tensor [M, G, D]) as `Orbits`, its shape checked against the crosscoder's."""
    if isinstance(orbits, torch.Tensor):
        if orbits.dim() != 3 or orbits.shape[1:] != (G, D) or not orbits.is_floating_point():
            raise argument_error(
                "orbits",
                expected=f"a floating-point tensor [M, G, D] = [M >= 1, {G}, {D}]",
                got=f"{orbits.dtype} of shape {tuple(orbits.shape)}",
                remedy="Use the group and the layer that the crosscoder is configured for.",
            )
        orbits = TensorOrbits(orbits.detach())
    if not isinstance(orbits, Orbits):
        raise argument_error(
            "orbits",
            expected="an orbit store or a tensor [M, G, D]",
            got=type(orbits).__name__,
            remedy=_REMEDIES.get(type(orbits).__name__, "groupcc.harvest makes a store."),
        )
    if len(orbits) == 0:
        raise argument_error(
            "orbits", expected="at least one example", got="no examples", remedy="Harvest some images first."
        )
    first = orbits.take(torch.zeros(1, dtype=torch.int64))
    if first.shape[1:] != (G, D):
        raise argument_error(
            "orbits",
            expected=f"examples [G, D] = [{G}, {D}]",
            got=f"{tuple(first.shape[1:])}",
            remedy="Use the group and the layer that the crosscoder is configured for.",
        )
    return orbits
