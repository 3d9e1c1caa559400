"""orbit_encode in plain PyTorch: maps [B, S, H, W, D], points [G, P, 2], W_enc [G or 1, D, L], b_enc [L] → [B·P, L]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops.orbit_gather.reference import Args as GatherArgs
from groupcc.ops.orbit_gather.reference import orbit_gather_reference

__all__ = ["Args", "orbit_encode_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.orbit_encode`. W_enc is [G, D, L], or [1, D, L] if the encoder reads element 0 alone."""

    maps_BSHWD: torch.Tensor
    points_GP2: torch.Tensor
    W_enc_GDL: torch.Tensor
    b_enc_L: torch.Tensor
    interpolation: str
    relu: bool


def orbit_encode_reference(args: Args) -> torch.Tensor:
    """See `groupcc.ops.orbit_encode`. The aligned activations exist here, [B·P, G or 1, D]."""
    maps_BSHWD, points_GP2, W_enc_GDL, b_enc_L, interpolation, relu = args
    blocks, D, L = W_enc_GDL.shape
    acts = orbit_gather_reference(GatherArgs(maps_BSHWD[:, :blocks], points_GP2[:blocks], interpolation))
    pre_acts = torch.addmm(b_enc_L, acts.flatten(1), W_enc_GDL.reshape(blocks * D, L))
    if not relu:
        return pre_acts
    # NaN stays, but passes no gradient.
    return torch.where(pre_acts.isnan(), pre_acts.detach(), pre_acts.relu())
