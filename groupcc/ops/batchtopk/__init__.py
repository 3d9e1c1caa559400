"""batchtopk: the N·k largest pre-activations of a batch."""

from __future__ import annotations

import torch

from groupcc.ops.backend import Op
from groupcc.ops.batchtopk.reference import batchtopk_reference
from groupcc.ops.checks import check_selection

__all__ = ["batchtopk"]

_op = Op("batchtopk", batchtopk_reference, batchtopk_reference, ())


def batchtopk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The N·k largest of the whole batch, then ReLU: pre_acts [N, L] → dense latent acts [N, L], threshold [].

    Everything else is 0. Ties go to the lower flat index. `threshold` is the smallest chosen pre-activation (0 where
    that is negative); its running mean is what inference uses in place of the batch. Gradient: through the chosen
    positive entries only. Deterministic. Bussmann et al. 2024 (arXiv:2412.06410), section 3.
    """
    check_selection(pre_acts, k)
    return _op(pre_acts, k)
