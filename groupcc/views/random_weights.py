"""The same network with random weights: what it gives was not learned."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from groupcc.errors import argument_error, check_whole
from groupcc.views.layers import parameter_kind

__all__ = ["random_weights"]

M = TypeVar("M", bound=nn.Module)

AT_ONCE = 16
"""Inputs in one forward pass of the calibration."""


@torch.no_grad()
def random_weights(model: M, inputs: torch.Tensor, *, seed: int = 0) -> M:
    """Returns a copy of a network, initialised anew, in eval mode: a null for what is found in the trained one.

    Every layer is initialised by its own `reset_parameters`. A module that has parameters but no `reset_parameters`
    gets normal numbers of the mean and standard deviation that each parameter had. Then each batch norm takes mean and
    variance from the inputs, as it would at the end of training: without them activations would die out or explode. It
    averages over batches of nearly equal size, `AT_ONCE` at most; dropout is off.

    `inputs` [B, C, H, W]: images as the network takes them, preprocessed; 32 or more are good. The model given, its
    mode and the state of random numbers stay as they are. Weights are drawn on the CPU, so `seed` decides them whatever
    the model's device. A module or parameter that stands in several places still does.

    Example: `random_weights(torch.nn.Conv2d(3, 8, 3), torch.rand(32, 3, 16, 16))`.

    Raises:
        ArgumentError: `model` is no module, or keeps running statistics otherwise than in batch norms (frozen batch
            norms do, whose weights and statistics are no parameters); `inputs` are not [B, C, H, W]; a wrong seed.
    """
    _check(model, inputs, seed)
    dtype, device = parameter_kind(model)
    made = copy.deepcopy(model).cpu()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would seed the generators of all devices.
        torch.default_generator.manual_seed(seed)
        _initialise(made)
    made.to(device).eval()
    norms = [module for module in made.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches
        norm.training = True  # `train()` would reach what a norm holds: timm's may hold a dropout
    if norms:
        # Of equal size: the average weighs inputs alike, and none is left over alone, on which a norm may fail.
        for batch in inputs.tensor_split(-(-len(inputs) // AT_ONCE)):
            made(batch.to(device, dtype))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return made.eval()


def _check(model: nn.Module, inputs: torch.Tensor, seed: int) -> None:
    if not isinstance(model, nn.Module):
        remedy = "groupcc.views.resolve_model(name).model is the module of a name."
        raise argument_error("model", expected="an nn.Module", got=type(model).__name__, remedy=remedy)
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 4 or len(inputs) == 0:
        got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        raise argument_error("inputs", expected="a tensor [B >= 1, C, H, W]", got=got, remedy="Preprocess them first.")
    check_whole("seed", seed, 0, "0 is the default.")
    for name, module in model.named_modules():
        if isinstance(getattr(module, "running_mean", None), torch.Tensor) and not isinstance(module, _BatchNorm):
            raise argument_error(
                "model",
                expected="no running statistics but those of batch norms",
                got=f"{name!r}, a {type(module).__name__}",
                remedy="Build the model with nn.BatchNorm2d in that place.",
            )


def _initialise(model: nn.Module) -> None:
    """Draws all parameters anew, in place, in the order of the modules."""
    drawn: set[int] = set()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
        if callable(reset):
            reset()
        else:
            for parameter in own:
                # A weight that a layer shares with this module has been drawn as that layer's.
                if id(parameter) not in drawn:
                    _draw(parameter)
        drawn.update(map(id, own))


def _draw(parameter: nn.Parameter) -> None:
    if parameter.is_floating_point() and parameter.numel():
        values = parameter.float()
        spread = values.std() if values.numel() > 1 else values.abs().mean()
        parameter.copy_(values.mean() + spread * torch.randn(parameter.shape))
