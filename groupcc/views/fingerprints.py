"""What a tensor or a model holds, as a hash."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

__all__ = ["model_fingerprint", "tensor_digest"]


def tensor_digest(tensor: torch.Tensor) -> str:
    """Hex SHA-256 over a tensor's dtype, shape and bytes, wherever it is stored."""
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}\n".encode())
    if tensor.numel():
        # Bytes rather than numbers: NumPy has no bfloat16.
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """Hex SHA-256 over the names, dtypes, shapes and bytes of the model's state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor_digest(value) if isinstance(value, torch.Tensor) else repr(value)}\n".encode())
    return digest.hexdigest()
