"""orbit_encode in plain PyTorch: maps [B, S, H, W, D], points [G, P, 2], W_enc [G or 1, D, L], b_enc [L] → [B·P, L]."""

from __future__ import annotations

import torch

from groupcc.ops.orbit_gather.reference import orbit_gather_reference

__all__ = ["orbit_encode_reference"]


def orbit_encode_reference(
    maps_BSHWD: torch.Tensor,
    points_GP2: torch.Tensor,
    W_enc_GDL: torch.Tensor,
    b_enc_L: torch.Tensor,
    interpolation: str,
    relu: bool,
) -> torch.Tensor:
    """See `groupcc.ops.orbit_encode`. The aligned activations exist here, [B·P, G or 1, D]."""
    blocks, D, L = W_enc_GDL.shape
    acts = orbit_gather_reference(maps_BSHWD[:, :blocks], points_GP2[:blocks], interpolation)
    pre_acts = torch.addmm(b_enc_L, acts.flatten(1), W_enc_GDL.reshape(blocks * D, L))
    if not relu:
        return pre_acts
    # NaN stays, but passes no gradient.
    return torch.where(pre_acts.isnan(), pre_acts.detach(), pre_acts.relu())
