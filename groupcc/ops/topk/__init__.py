"""topk: the k largest pre-activations of each row."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.ops.backend import Op
from groupcc.ops.topk.reference import topk_reference

__all__ = ["topk"]

_op = Op("topk", topk_reference)


def topk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row, then ReLU: pre_acts [N, L] → acts [N, k], indices int64 [N, k].

    Rows are sorted by falling pre-activation; ties go to the lower index. Where fewer than k of a row are positive,
    the remaining acts are 0 and pass no gradient (the ReLU's mask). Gradient: that of acts, scattered to the chosen
    entries. Deterministic. NaN is not looked for here: `GroupCrosscoder` checks its input. Gao et al. 2024
    (arXiv:2406.04093), section 2.3.
    """
    if pre_acts.dim() != 2 or not pre_acts.is_floating_point():
        raise argument_error(
            "pre_acts",
            expected="a floating-point tensor [N, L]",
            got=f"{pre_acts.dtype} of shape {tuple(pre_acts.shape)}",
            remedy="Flatten leading axes first.",
        )
    if not 1 <= k <= pre_acts.shape[1]:
        raise argument_error(
            "k",
            expected=f"1 to L = {pre_acts.shape[1]}",
            got=k,
            remedy="Choose fewer active latents, or a larger dictionary.",
        )
    return _op(pre_acts, k)
