"""The network after a layer: run on an input with that layer's maps replaced, and read further on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from groupcc.errors import argument_error
from groupcc.views import LayerView
from groupcc.views.layers import find_layer, replaced_maps

__all__ = ["OUTPUT", "Tail"]

OUTPUT = "output"
"""Name of the model's output among the read-outs."""


class Tail:
    """`tail(input, maps)`: what each read-out is, [B, numbers], if the view's layer gives `maps` [B, H, W, D].

    The model runs on the one input [1, C, h, w], repeated, with the maps in the place of the layer's own; hooks are
    removed whatever happens. Read-outs are the model's output and the `later` layers. A later layer is read as it gave
    its output: what an in-place operation after the layer writes over that output is not in the read-out.

    Raises (on call):
        ArgumentError: a read-out is no floating-point tensor with an entry for each example, or never came.
    """

    def __init__(self, view: LayerView, later: Sequence[str]) -> None:
        self.view = view
        self._later = {name: find_layer(view.model, name) for name in later}
        self.readouts = [OUTPUT, *self._later]

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, maps_BHWD: torch.Tensor) -> dict[str, torch.Tensor]:
        view, batch = self.view, len(maps_BHWD)
        seen: dict[str, Any] = {}

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                seen[name] = output.clone() if isinstance(output, torch.Tensor) else output

            return hook

        # The layer's hook first: a read-out of the layer itself then is what was put there.
        with replaced_maps(view.model, view.layer, view.layout, maps_BHWD):
            handles = [module.register_forward_hook(keep(name)) for name, module in self._later.items()]
            try:
                seen[OUTPUT] = view.model(inputs.expand(batch, *inputs.shape[1:]))
            finally:
                for handle in handles:
                    handle.remove()
        return {name: _numbers(name, seen.get(name), batch) for name in self.readouts}


def _numbers(name: str, value: Any, batch: int) -> torch.Tensor:
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.dim() > 0 and len(value) == batch:
        return value.flatten(1).double().cpu()
    got = f"a {type(value).__name__}" if not isinstance(value, torch.Tensor) else f"shape {tuple(value.shape)}"
    raise argument_error(
        "model" if name == OUTPUT else "later",
        expected=f"a floating-point tensor with {batch} entries from {name!r} for {batch} inputs",
        got="nothing, it is never called" if value is None else got,
        remedy="Wrap the model so that it returns its logits alone, and name later layers that run.",
    )
