"""What analysis and report ask of a crosscoder's form, in one place."""

from __future__ import annotations

import torch

from groupcc.groups.translate import translation_table
from groupcc.models import CrosscoderConfig, GroupCrosscoder

__all__ = [
    "decoder_bias",
    "decoder_rows",
    "has_poses",
    "has_residuals",
    "n_poses",
    "reads_all_blocks",
    "translates_exactly",
]


def has_poses(config: CrosscoderConfig) -> bool:
    """Whether latents have |G| poses. The family of its poses is then given by construction."""
    return bool(config.tied)


def has_residuals(config: CrosscoderConfig) -> bool:
    """Whether the poses of a latent may differ by more than a translation."""
    return config.tied == "residual"


def n_poses(crosscoder: GroupCrosscoder) -> int:
    """H, the poses of a latent: |G| if latents have poses, else 1."""
    return crosscoder.group.order if has_poses(crosscoder.config) else 1


def translates_exactly(crosscoder: GroupCrosscoder) -> bool:
    """Whether a translated orbit has the same acts, in translated poses."""
    return crosscoder.config.tied is True


def reads_all_blocks(crosscoder: GroupCrosscoder) -> bool:
    """Whether every latent's encoder has |G| blocks."""
    return crosscoder.config.encoder == "orbit" or has_poses(crosscoder.config)


def decoder_rows(crosscoder: GroupCrosscoder, latents_P: torch.Tensor, poses_P: torch.Tensor | None) -> torch.Tensor:
    """Returns the decoders [P, G, D] of latents, or of the atoms (latent, pose)."""
    W_LGD = crosscoder.W_dec.detach()
    if poses_P is None:
        return W_LGD[latents_P]
    W_PGD = W_LGD[latents_P[:, None], translation_table(crosscoder.group, W_LGD.device)[poses_P]]
    residual = crosscoder.residual_W_dec.detach()[latents_P, poses_P] if has_residuals(crosscoder.config) else None
    return W_PGD if residual is None else W_PGD + residual


def decoder_bias(crosscoder: GroupCrosscoder) -> torch.Tensor:
    """Returns b_dec, [G, D], or [1, D] if it is one for all blocks."""
    b_dec = crosscoder.b_dec.detach()
    return b_dec + crosscoder.residual_b_dec.detach() if has_residuals(crosscoder.config) else b_dec
