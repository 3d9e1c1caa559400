"""One layer of any `nn.Module`: found by name, run up to, checked to give feature maps."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import nn

from groupcc.errors import ArgumentError, argument_error

__all__ = ["LayerReader", "evaluation_mode", "find_layer", "parameter_kind", "probe_layer"]

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
    """Runs a model up to one layer: `reader(inputs)` is that layer's output, [B, C, H, W].

    The forward pass is left by a private exception once the layer has been called, so what comes after costs nothing.
    No gradients unless `gradients`; the hook is removed whatever happens.

    Raises (on call):
        ArgumentError: the layer is never reached, or gives something else than a floating-point [B, C, H, W].
    """

    def __init__(self, model: nn.Module, layer: str, *, gradients: bool = False) -> None:
        self.model = model
        self.layer = layer
        self.gradients = gradients
        self._module = find_layer(model, layer)

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
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
        return _feature_maps(captured[0], self.layer, inputs.shape[0])


@torch.no_grad()
def probe_layer(model: nn.Module, layer: str, inputs: torch.Tensor) -> tuple[int, int, int]:
    """(channels, height, width) of a layer's maps, after one whole forward pass that counts how often it is called.

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
    maps = _feature_maps(outputs[0], layer, inputs.shape[0])
    return int(maps.shape[1]), int(maps.shape[2]), int(maps.shape[3])


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


def _feature_maps(output: Any, layer: str, batch: int) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        got = f"a {type(output).__name__}"
    elif not output.is_floating_point():
        got = f"a tensor of {output.dtype}"
    elif output.dim() == 3:
        got = f"a tensor of shape {tuple(output.shape)}, such as a transformer's tokens"
    elif output.dim() != 4 or output.shape[0] != batch:
        got = f"a tensor of shape {tuple(output.shape)} for a batch of {batch}"
    else:
        return output
    raise argument_error(
        "layer",
        expected=f"floating-point feature maps [B, C, H, W] from {layer!r}",
        got=got,
        remedy="Choose a convolutional layer or block; an orbit needs maps whose pixels lie over the image's.",
    )
