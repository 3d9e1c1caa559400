"""How a layer's output is laid out, and the maps [B, H, W, D] that it holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from groupcc.errors import argument_error

__all__ = ["LAYOUTS", "FeatureMaps", "Layout", "detect_layout"]


class Layout(ABC):
    """Between a layer's output and maps [B, H, W, D], whose pixels lie over the image's.

    A new layout is a subclass and an entry of `LAYOUTS`.
    """

    name: ClassVar[str]
    """What the record of a view and of a store says."""

    @abstractmethod
    def fits(self, output: torch.Tensor, batch: int) -> bool:
        """Whether a floating-point output for a batch of this size may be laid out so."""

    @abstractmethod
    def to_maps(self, output: torch.Tensor) -> torch.Tensor:
        """The maps of an output, [B, H, W, D], in its dtype. Gradients flow; a view of the output if possible."""

    @abstractmethod
    def from_maps(self, maps_BHWD: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """The output with these maps in the place of its own, in its dtype and on its device.

        What of an output is no map (a class token, say) stays as it is. `to_maps(from_maps(m, o))` is m.
        """


class FeatureMaps(Layout):
    """Convolutional feature maps [B, C, H, W]."""

    name = "BCHW"

    def fits(self, output: torch.Tensor, batch: int) -> bool:
        return output.dim() == 4 and output.shape[0] == batch

    def to_maps(self, output: torch.Tensor) -> torch.Tensor:
        return output.permute(0, 2, 3, 1)

    def from_maps(self, maps_BHWD: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        return maps_BHWD.permute(0, 3, 1, 2).to(output)


LAYOUTS: list[Layout] = [FeatureMaps()]
"""Every layout that is known, in the order in which a layer's output is tried."""


def detect_layout(output: Any, layer: str, batch: int, among: Sequence[Layout] = LAYOUTS) -> Layout:
    """The first layout of `among` that fits a layer's output for a batch of this size; ArgumentError if none does."""
    if isinstance(output, torch.Tensor) and output.is_floating_point():
        for layout in among:
            if layout.fits(output, batch):
                return layout
    if not isinstance(output, torch.Tensor):
        got = f"a {type(output).__name__}"
    elif not output.is_floating_point():
        got = f"a tensor of {output.dtype}"
    elif output.dim() == 3:
        got = f"a tensor of shape {tuple(output.shape)}, such as a transformer's tokens"
    else:
        got = f"a tensor of shape {tuple(output.shape)} for a batch of {batch}"
    raise argument_error(
        "layer",
        expected=f"floating-point feature maps [B, C, H, W] from {layer!r}",
        got=got,
        remedy="Choose a convolutional layer or block; an orbit needs maps whose pixels lie over the image's.",
    )
