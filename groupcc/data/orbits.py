"""Orbits to read examples from: a store, a tensor, or an object of the user's behind one face."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from groupcc.errors import argument_error
from groupcc.ops.memory import recycled, take_scaled

__all__ = ["Orbits", "TensorOrbits", "as_orbits", "is_orbits"]

_OPEN = "groupcc.OrbitStore.open(directory) reads a store."
_REMEDIES = {
    "ndarray": "torch.from_numpy(array) makes a tensor.",
    "str": _OPEN,
    "PosixPath": _OPEN,
    "WindowsPath": _OPEN,
}


@runtime_checkable
class Orbits(Protocol):
    """All that training and analysis ask of a source of orbits. A class that derives from it needs the first three.

    Who asks what:

    - Training asks `len`, `image_ids` and `photograph_ids` once, to split the examples by photograph, and `take` for
      starting values and evaluation. Before each step it asks `at_step`, and the answer for `take_scaled`.
    - Analysis asks `len`, `take`, `image_ids` and `photograph_ids`, and `positions_of`, `place_radius`, `layer` and
      `image_names` for what it says of places. It takes an example several times and expects the same, so it never
      asks `at_step`.

    Sources of other kinds fit as follows. A stream, whose length nobody knows, has the length of its buffer: an index
    is a slot, `at_step` returns the buffer as it is filled for that step, and `photograph_ids` say which slots go
    together, so that a photograph never comes into a slot on the other side of the split. Only training may be given a
    stream. A rank's share of a store has the length and the examples of the share, and of the store's `image_ids` and
    `photograph_ids` those of the share, so that a photograph is on the same side of the split on every rank.
    """

    image_ids: Tensor
    """int64 [M]: the image that each example comes from."""

    image_names: list[str] | None = None
    """The name of each image, for messages; None if images have none."""

    layer: str | None = None
    """The layer that the activations are of; None if unknown."""

    @property
    def photograph_ids(self) -> Tensor:
        """int64 [M]: the photograph that each example comes from. Several images may show one photograph, as its crops
        do or the frames of one film. By default each image is a photograph of its own."""
        return self.image_ids

    def __len__(self) -> int:
        """Returns the number of examples, M."""
        ...

    def take(self, indices: Tensor) -> Tensor:
        """Returns the examples at int64 [n] in this order: fp32 [n, G, D], in memory of its own."""
        ...

    def take_scaled(self, indices: Tensor, factor: float) -> Tensor:
        """Returns `take` times a number; a source may read and scale in one pass."""
        return _scaled(self.take(indices), factor)

    def at_step(self, step: int) -> Orbits:
        """Returns the orbits of training step 0, 1, …: for most sources themselves."""
        return self

    def positions_of(self, i: int) -> tuple[float, float] | None:
        """Returns example i's position (x, y) on the layer's map, in map pixels; None without positions."""
        return None

    @property
    def place_radius(self) -> float:
        """Examples of one image nearer than so many map pixels show one place; infinity without positions."""
        return math.inf


class TensorOrbits(Orbits):
    """A tensor [M, G, D] as orbits; every example counts as an image of its own."""

    def __init__(self, acts: Tensor) -> None:
        self.acts = acts
        self.image_ids = torch.arange(len(acts))

    def __len__(self) -> int:
        return len(self.acts)

    def take(self, indices: Tensor) -> Tensor:
        return self._taken(indices, 1.0)

    def take_scaled(self, indices: Tensor, factor: float) -> Tensor:
        return self._taken(indices, factor)

    def _taken(self, indices: Tensor, factor: float) -> Tensor:
        indices = indices.to(self.acts.device)
        if self.acts.device.type != "cpu" or self.acts.dtype != torch.float32:
            return self.acts[indices].float() * factor
        return take_scaled(self.acts, indices, factor)


class _Adapted(Orbits):
    """An object with no more than `len`, `take` and `image_ids`, or with some of the rest. Everything else is as
    there."""

    def __init__(self, given: Any) -> None:
        self.given = given
        self.image_ids = given.image_ids
        self.image_names = getattr(given, "image_names", None)
        self.layer = getattr(given, "layer", None)

    @property
    def photograph_ids(self) -> Tensor:
        own = getattr(self.given, "photograph_ids", None)
        return self.image_ids if own is None else own

    def __len__(self) -> int:
        return len(self.given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.given, name)

    def take(self, indices: Tensor) -> Tensor:
        taken: Tensor = self.given.take(indices)
        return taken

    def take_scaled(self, indices: Tensor, factor: float) -> Tensor:
        own = getattr(self.given, "take_scaled", None)
        return super().take_scaled(indices, factor) if own is None else own(indices, factor)

    def positions_of(self, i: int) -> tuple[float, float] | None:
        own = getattr(self.given, "positions_of", None)
        return None if own is None else own(i)

    @property
    def place_radius(self) -> float:
        lattice = getattr(self.given, "lattice", None)
        return math.inf if lattice is None else float(0.5 * lattice.receptive_field / lattice.stride)


def is_orbits(value: object) -> bool:
    """Whether `as_orbits` takes this for orbits, whatever its shape: a tensor of three axes, or an object that has
    `len`, `take` and `image_ids`."""
    if isinstance(value, Tensor):
        return value.dim() == 3
    return isinstance(value, Orbits) or all(hasattr(value, name) for name in ("__len__", "take", "image_ids"))


def as_orbits(orbits: object, G: int, D: int, name: str = "orbits") -> Orbits:
    """Returns a store, a tensor [M, G, D] or an object with `len`, `take` and `image_ids` as `Orbits`.

    `name`: of the argument, for messages.

    ArgumentError if it is none of these, holds no example, or holds examples that are not [G, D].
    """
    if isinstance(orbits, Tensor):
        if orbits.dim() != 3 or orbits.shape[1:] != (G, D) or not orbits.is_floating_point():
            raise argument_error(
                name,
                expected=f"a floating-point tensor [M, G, D] = [M >= 1, {G}, {D}]",
                got=f"{orbits.dtype} of shape {tuple(orbits.shape)}",
                remedy="Use the group and the layer that the crosscoder is configured for.",
            )
        orbits = TensorOrbits(orbits.detach())
    if not is_orbits(orbits):
        raise argument_error(
            name,
            expected="an orbit store or a tensor [M, G, D]",
            got=type(orbits).__name__,
            remedy=_REMEDIES.get(type(orbits).__name__, "groupcc.harvest makes a store."),
        )
    source = orbits if isinstance(orbits, Orbits) else _Adapted(orbits)
    if len(source) == 0:
        raise argument_error(
            name, expected="at least one example", got="no examples", remedy="Harvest some images first."
        )
    first = source.take(torch.zeros(1, dtype=torch.int64))
    if first.shape[1:] != (G, D):
        raise argument_error(
            name,
            expected=f"examples [G, D] = [{G}, {D}]",
            got=f"{tuple(first.shape[1:])}",
            remedy="Use the group and the layer that the crosscoder is configured for.",
        )
    return source


def _scaled(acts: Tensor, factor: float) -> Tensor:
    """Returns acts times a number, in memory of its own."""
    out = recycled(tuple(acts.shape), acts.dtype) if acts.device.type == "cpu" else None
    return torch.mul(acts, factor, out=out)
