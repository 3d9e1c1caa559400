"""topk: the k largest pre-activations of each row."""

from __future__ import annotations

import torch

from groupcc.ops.backend import Op
from groupcc.ops.checks import check_selection
from groupcc.ops.topk.reference import topk_reference

__all__ = ["topk"]

_op = Op("topk", topk_reference, topk_reference, ())


def topk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row, then ReLU: pre_acts [N, L] → acts [N, k], indices int64 [N, k].

    Rows are sorted by falling pre-activation; ties go to the lower index. Where fewer than k of a row are positive,
    the remaining acts are 0 and pass no gradient (the ReLU's mask). Gradient: that of acts, scattered to the chosen
    entries. Deterministic. NaN is not looked for here: `GroupCrosscoder` checks its input. Gao et al. 2024
    (arXiv:2406.04093), section 2.3.
    """
    check_selection(pre_acts, k)
    return _op(pre_acts, k)
