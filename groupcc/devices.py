"""Moving a module to a device that the user named."""

from __future__ import annotations

import torch
from torch import nn

from groupcc.errors import argument_error

__all__ = ["move"]


def move(module: nn.Module, device: str | torch.device | None) -> None:
    """Moves `module` in place; None leaves it. ArgumentError where PyTorch has no such device here."""
    if device is None:
        return
    try:
        module.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        raise argument_error(
            "device",
            expected="a device that PyTorch can use here",
            got=f"{device} ({error})",
            remedy='Leave it out for where the model is; "cuda" needs a GPU, which `groupcc doctor` looks for.',
        ) from error
