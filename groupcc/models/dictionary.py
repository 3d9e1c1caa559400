"""Dictionary: what forms and sparsities see of a crosscoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from groupcc.groups import Group
from groupcc.models.config import CrosscoderConfig

__all__ = ["Dictionary"]


class Dictionary(nn.Module):
    """The parameters and buffers of a crosscoder, with its configuration and group; `GroupCrosscoder` says which.

    It stands below forms and sparsities, which are given one, as `GroupCrosscoder` stands above them.
    """

    config: CrosscoderConfig
    group: Group
    provenance: dict[str, Any]
    W_enc: nn.Parameter
    b_enc: nn.Parameter
    W_dec: nn.Parameter
    b_dec: nn.Parameter
    residual_W_enc: nn.Parameter
    residual_W_dec: nn.Parameter
    residual_b_enc: nn.Parameter
    residual_b_dec: nn.Parameter
    threshold: torch.Tensor
    since_fired: torch.Tensor

    @property
    def encoder_gain(self) -> float:
        """W_enc over W_dec at the start: block 0 holds 1/|G| of a latent's power, and both encoders start alike."""
        return 1.0 if self.config.encoder == "orbit" else float(self.group.order)

    def compute_dtype(self, acts: torch.Tensor) -> torch.dtype:
        """Returns the dtype to compute in. Autocast knows PyTorch's own products, not the ops of this library."""
        device = acts.device.type
        if torch.is_autocast_enabled(device) and acts.dtype == torch.float32:
            return torch.get_autocast_dtype(device)
        return acts.dtype
