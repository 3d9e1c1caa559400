"""What of an item is transformed, and its picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from groupcc.harvesting.decode import square
from groupcc.harvesting.sources import Item
from groupcc.views import LayerView

__all__ = ["load_canvas"]


def load_canvas(view: LayerView, item: Item) -> tuple[torch.Tensor, npt.NDArray[np.uint8]]:
    """What is transformed, float [C, h, w], and its picture for the store, uint8 [h, w, 3]."""
    loaded = item.load()
    if isinstance(loaded, torch.Tensor):
        return loaded, _picture(loaded)
    canvas = square(loaded, view.geometry.canvas_size[0])
    return torch.from_numpy(canvas.copy()).permute(2, 0, 1).float() / 255, canvas


def _picture(values: torch.Tensor) -> npt.NDArray[np.uint8]:
    """A tensor as a picture: channels 1 or 3 as they are, others averaged; values outside [0, 1] are stretched."""
    if values.shape[0] != 3:
        values = values.mean(0, keepdim=True).expand(3, -1, -1)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        values = (values - low) / max(high - low, 1e-12)
    return (values * 255).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy()
