"""The decoder blocks of latents: checked, their norms, and how those of one latent compare."""

from __future__ import annotations

import torch
from torch import nn

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups.autocorrelation import latent_step

__all__ = ["block_norms", "block_similarity", "check_decoder", "check_weights", "similarity_maps"]

DAMAGED = "The checkpoint is damaged or the training diverged; go back to an earlier checkpoint."


def check_decoder(W_dec_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """Returns the decoder detached and in at least fp32. ArgumentError, naming the first bad latent, if it is none."""
    if not isinstance(W_dec_LGD, torch.Tensor) or W_dec_LGD.dim() != 3 or not W_dec_LGD.is_floating_point():
        is_tensor = isinstance(W_dec_LGD, torch.Tensor)
        got = f"{W_dec_LGD.dtype} of shape {tuple(W_dec_LGD.shape)}" if is_tensor else type(W_dec_LGD).__name__
        expected = "a floating-point tensor [L, G, D]"
        raise argument_error("W_dec", expected=expected, got=got, remedy="Pass crosscoder.W_dec.")
    if W_dec_LGD.shape[1] != group.order:
        raise argument_error(
            "W_dec",
            expected=f"{group.order} decoder blocks a latent, one for each element of {group.name}",
            got=f"shape {tuple(W_dec_LGD.shape)}",
            remedy="Pass the group that the crosscoder was trained with.",
        )
    W_dec = W_dec_LGD.detach()
    W_dec = W_dec if W_dec.dtype == torch.float64 else W_dec.float()
    bad = (~torch.isfinite(W_dec)).flatten(1).any(1).nonzero()
    if len(bad):
        raise argument_error(
            "W_dec",
            expected="finite numbers",
            got=f"NaN or infinity in {len(bad)} latents, first in latent {int(bad[0])}",
            remedy=DAMAGED,
        )
    return W_dec


def check_weights(module: nn.Module) -> None:
    """ArgumentError, naming it, if a parameter or buffer of the module holds NaN or infinity."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise argument_error(
                name,
                expected="finite numbers",
                got=f"NaN or infinity in {int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers",
                remedy=DAMAGED,
            )


def block_norms(W_dec_LGD: torch.Tensor) -> torch.Tensor:
    """‖d_g‖ for each latent and element: [L, G, D] → [L, G]."""
    return torch.linalg.vector_norm(W_dec_LGD, dim=-1)


def block_similarity(W_dec_LGD: torch.Tensor) -> torch.Tensor:
    """S[l, g, g'] = cos(d_g, d_g') between a latent's decoder blocks: [L, G, D] → [L, G, G] in [−1, 1].

    0 where a block is zero. The whole result is held: |G|² numbers a latent.
    """
    norms = block_norms(W_dec_LGD)
    unit = W_dec_LGD / norms.clamp_min(torch.finfo(W_dec_LGD.dtype).tiny).unsqueeze(-1)
    return (unit @ unit.mT).clamp_(-1.0, 1.0)


def similarity_maps(W_dec_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """`block_similarity` of every latent as float16 on the CPU, [L, G, G], computed some latents at a time."""
    step = latent_step(len(W_dec_LGD), group, W_dec_LGD.shape[2])
    return torch.cat([block_similarity(some).half().cpu() for some in W_dec_LGD.split(step)])
