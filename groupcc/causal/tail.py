"""The network after a layer: run on an input with that layer's output replaced, and read further on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from groupcc.errors import argument_error
from groupcc.views.layers import find_layer

__all__ = ["OUTPUT", "Tail"]

OUTPUT = "output"
"""Name of the model's output among the read-outs."""


class Tail:
    """`tail(input, maps)`: what each read-out is, [B, numbers], when the layer gives `maps` [B, H, W, D].

    The model runs on the one input [1, C, h, w], repeated, with a hook that puts the maps in the place of the layer's
    output; hooks are removed whatever happens. Read-outs are the model's output and the `later` layers.

    Raises (on call):
        ArgumentError: a read-out is no floating-point tensor with an entry for each example, or never came.
    """

    def __init__(self, model: nn.Module, layer: str, later: Sequence[str]) -> None:
        self.model = model
        self._layer = find_layer(model, layer)
        self._later = {name: find_layer(model, name) for name in later}
        self.readouts = [OUTPUT, *self._later]

    @torch.no_grad()
    def __call__(self, inputs: torch.Tensor, maps_BHWD: torch.Tensor) -> dict[str, torch.Tensor]:
        batch = len(maps_BHWD)
        seen: dict[str, Any] = {}

        def replace(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
            return maps_BHWD.permute(0, 3, 1, 2).to(output)

        def keep(name: str) -> Any:
            def hook(module: nn.Module, args: Any, output: Any) -> None:
                seen[name] = output

            return hook

        # The layer's hook first: a read-out of the layer itself then is what was put there.
        handles = [self._layer.register_forward_hook(replace)]
        handles += [module.register_forward_hook(keep(name)) for name, module in self._later.items()]
        try:
            seen[OUTPUT] = self.model(inputs.expand(batch, *inputs.shape[1:]))
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
