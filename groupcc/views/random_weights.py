"""The same network with random weights: what it gives was not learned."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from groupcc.errors import argument_error, check_is

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
    averages over the batches of `AT_ONCE`; dropout is off.

    `inputs` [B, C, H, W]: images as the network takes them, preprocessed; 32 or more are good. The model given, its
    mode and the state of random numbers stay as they are. Deterministic in `seed` on the CPU. A module that stands in
    several places still does.

    Example: `random_weights(torch.nn.Conv2d(3, 8, 3), torch.rand(32, 3, 16, 16))`.

    Raises:
        ArgumentError: `model` is no module; `inputs` are not [B, C, H, W].
    """
    check_is("model", model, nn.Module)
    if not isinstance(inputs, torch.Tensor) or inputs.dim() != 4 or len(inputs) == 0:
        got = f"shape {tuple(inputs.shape)}" if isinstance(inputs, torch.Tensor) else type(inputs).__name__
        raise argument_error("inputs", expected="a tensor [B >= 1, C, H, W]", got=got, remedy="Preprocess them first.")
    made = copy.deepcopy(model)
    devices = sorted({p.device.index for p in made.parameters() if p.is_cuda and p.device.index is not None})
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for module in made.modules():
            _initialise(module)
    made.eval()
    norms = [module for module in made.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over all batches
        norm.train()
    if norms:
        parameter = next(made.parameters())
        for batch in inputs.split(AT_ONCE):
            made(batch.to(parameter.device, parameter.dtype))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return made.eval()


def _initialise(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in module.parameters(recurse=False):
        values = parameter.float()
        spread = values.std() if values.numel() > 1 else values.abs().mean()
        parameter.copy_(values.mean() + spread * torch.randn(parameter.shape).to(values))
