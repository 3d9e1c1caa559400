"""group_encode_at in plain PyTorch: x [N, G, D], W_enc [L, G, D], b_enc [L], indices, poses [N, K] → acts [N, K]."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops.group_correlate import group_correlate

__all__ = ["Args", "group_encode_at_reference"]


class Args(NamedTuple):
    """Of `groupcc.ops.group_encode_at`."""

    x_NGD: torch.Tensor
    W_enc_LGD: torch.Tensor
    b_enc_L: torch.Tensor
    indices_NK: torch.Tensor
    poses_NK: torch.Tensor
    known_NK: torch.Tensor | None
    group: Group


def group_encode_at_reference(args: Args) -> torch.Tensor:
    """See `groupcc.ops.group_encode_at`: chosen from the pre-activations of every base latent in every pose."""
    x, W_enc, b_enc, indices, poses, known, group = args
    pre_NLG = group_correlate(x, W_enc, group) + b_enc[:, None]
    acts = torch.relu(pre_NLG[torch.arange(len(x), device=x.device)[:, None], indices, poses])
    return acts if known is None else acts.masked_fill(known <= 0, 0)
