"""Dictionary: what forms and sparsities see of a crosscoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from groupcc import _defaults
from groupcc.errors import argument_error
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
    centre: Tensor
    threshold: Tensor
    since_fired: Tensor

    @property
    def encoder_gain(self) -> float:
        """W_enc over W_dec at the start: block 0 holds 1/|G| of a latent's power, and both encoders start alike."""
        return 1.0 if self.config.encoder == "orbit" else float(self.group.order)

    @property
    def dead(self) -> Tensor:
        """Which latents have not fired for `config.dead_after` examples or more of training, bool [L]."""
        return self.since_fired >= self.dead_after

    @property
    def dead_after(self) -> int:
        """`config.dead_after`, with its default filled in."""
        return _defaults.DEAD_AFTER if self.config.dead_after is None else self.config.dead_after

    def compute_dtype(self, acts: Tensor) -> torch.dtype:
        """Returns the dtype to compute in. Autocast knows PyTorch's own products, not the ops of this library."""
        device = acts.device.type
        if torch.is_autocast_enabled(device) and acts.dtype == torch.float32:
            return torch.get_autocast_dtype(device)
        return acts.dtype

    def accept(self, acts: Tensor) -> Tensor:
        """Returns `acts` in the dtype to compute in. ArgumentError if they are not [N, G, D] as the crosscoder's."""
        G, D = self.W_dec.shape[1:]
        if acts.dim() != 3 or acts.shape[1:] != (G, D) or not acts.is_floating_point():
            raise argument_error(
                "acts",
                expected=f"a floating-point tensor [N, G, D] = [N, {G}, {D}]",
                got=f"{acts.dtype} of shape {tuple(acts.shape)}",
                remedy="Orbits must come from the crosscoder's group and layer.",
            )
        return acts.to(self.compute_dtype(acts))

    def check_finite(self, acts: Tensor, seen: Tensor | None = None) -> None:
        """ArgumentError if `acts` are not finite. `seen`: something smaller that then isn't finite either."""
        # A sum is finite only if every term is, short of overflow, which the slow look then rules out.
        if not bool((acts if seen is None else seen).sum(dtype=torch.float32).isfinite()):
            bad = (~acts.isfinite()).flatten(1).any(1).nonzero().flatten()
            if bad.numel():
                raise argument_error(
                    "acts",
                    expected="finite numbers",
                    got=f"NaN or infinity in {bad.numel()} rows, the first of them row {int(bad[0])}",
                    remedy="Find the images behind these rows; harvest reports them by name.",
                )

    def state(self) -> Mapping[str, Tensor]:
        """Parameters and buffers by name, detached, contiguous, on the CPU."""
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
