"""One layer of any `nn.Module`: found by name, run up to, or replaced on the way through."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import nn

from groupcc.errors import ArgumentError, argument_error
from groupcc.views.layout import LAYOUTS, Layout, detect_layout

__all__ = ["LayerReader", "evaluation_mode", "find_layer", "parameter_kind", "probe_layer", "replaced_maps"]

LISTED = 40


class _Captured(Exception):  # noqa: N818 (control flow, not an error)
    """Leaves the model's forward pass once the layer has given its output."""


def find_layer(model: nn.Module, layer: str) -> nn.Module:
    """The submodule with this dotted name, as in `model.named_modules()`.

    Raises:
        ArgumentError: no submodule has that name; the message gives the nearest names and the valid ones.
    """
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(layer, str) and layer in names:
        return model.get_submodule(layer)
    nearest = difflib.get_close_matches(str(layer), names, n=3, cutoff=0.5)
    # A long list buries the names that matter: blocks come before what is inside them.
    shown = sorted(names, key=lambda name: name.count("."))[:LISTED]
    shown = [name for name in names if name in set(shown)]
    more = f" and {len(names) - len(shown)} more (model.named_modules() gives all)" if len(names) > len(shown) else ""
    hint = f"Nearest: {', '.join(nearest)}. " if nearest else ""
    raise argument_error(
        "layer",
        expected=f"the name of a submodule of {type(model).__name__}",
        got=repr(layer),
        remedy=f"{hint}Valid names: {', '.join(shown) or 'none, the model has no submodules'}{more}.",
    )


class LayerReader:
    """Runs a model up to one layer: `reader(inputs)` is that layer's output, `reader.maps(inputs)` its maps.

    The forward pass is left by a private exception once the layer has been called, so what comes after costs nothing.
    No gradients unless `gradients`; the hook is removed whatever happens. `layout` is detected from each output
    unless it is given.

    Raises (on call):
        ArgumentError: the layer is never reached, or gives something that no layout fits.
    """

    def __init__(self, model: nn.Module, layer: str, layout: Layout | None = None, *, gradients: bool = False) -> None:
        self.model = model
        self.layer = layer
        self.layout = layout
        self.gradients = gradients
        self._module = find_layer(model, layer)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._run(inputs)[0]

    def maps(self, inputs: torch.Tensor) -> torch.Tensor:
        """The layer's maps, [B, H, W, D], in the dtype of its output."""
        output, layout = self._run(inputs)
        return layout.to_maps(output)

    def _run(self, inputs: torch.Tensor) -> tuple[torch.Tensor, Layout]:
        captured: list[Any] = []

        def hook(module: nn.Module, args: Any, output: Any) -> NoReturn:
            captured.append(output)
            raise _Captured

        handle = self._module.register_forward_hook(hook)
        try:
            with torch.set_grad_enabled(self.gradients and torch.is_grad_enabled()):
                self.model(inputs)
        except _Captured:
            pass
        finally:
            handle.remove()
        if not captured:
            raise _never_called(self.layer)
        among = LAYOUTS if self.layout is None else [self.layout]
        return captured[0], detect_layout(captured[0], self.layer, inputs.shape[0], among)


@torch.no_grad()
def probe_layer(model: nn.Module, layer: str, inputs: torch.Tensor) -> tuple[Layout, tuple[int, int, int]]:
    """Returns the layout of a layer's output and its maps' (D, H, W), after one whole forward pass that counts how
    often the layer is called.

    A failure after the layer (a classifier that wants another input size, say) is no obstacle: nothing after the
    layer is used.

    Raises:
        ArgumentError: the layer isn't called, is called more than once (a module used in several places has no one
            output), doesn't give maps, or the model fails before it.
    """
    module = find_layer(model, layer)
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda module, args, output: outputs.append(output))
    try:
        model(inputs)
    except ArgumentError:
        if not outputs:
            raise
    except Exception as error:
        if not outputs:
            raise argument_error(
                "model",
                expected=f"a model that takes inputs of shape {tuple(inputs.shape)}",
                got=f"{type(error).__name__}: {error}",
                remedy="Give the input size it takes as input_size=(height, width).",
            ) from error
    finally:
        handle.remove()
    if not outputs:
        raise _never_called(layer)
    if len(outputs) > 1:
        raise argument_error(
            "layer",
            expected="a layer that is called once in a forward pass",
            got=f"{layer!r}, called {len(outputs)} times (one module used in several places, such as a shared ReLU)",
            remedy="Choose the block around the call that you mean.",
        )
    layout = detect_layout(outputs[0], layer, inputs.shape[0])
    _, height, width, d_in = layout.to_maps(outputs[0]).shape
    return layout, (int(d_in), int(height), int(width))


@contextlib.contextmanager
def replaced_maps(model: nn.Module, layer: str, layout: Layout, maps_BHWD: torch.Tensor) -> Iterator[None]:
    """While open, the layer's output has these maps in the place of its own, and what comes after runs on them."""

    def replace(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        return layout.from_maps(maps_BHWD, output)

    handle = find_layer(model, layer).register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards every module's training flag is as it was."""
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in flags:
            module.training = training


def parameter_kind(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Dtype and device of the model's first floating-point parameter or buffer; float32 on the CPU without any."""
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            return tensor.dtype, tensor.device
    return torch.float32, torch.device("cpu")


def _never_called(layer: str) -> ArgumentError:
    return argument_error(
        "layer",
        expected="a layer that the forward pass calls",
        got=f"{layer!r}, which is never called in eval mode (an auxiliary head, or a container called by parts)",
        remedy="Choose a module that runs, for example one inside it.",
    )
