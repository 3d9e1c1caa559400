"""batchtopk: the N·k largest pre-activations of a batch."""

from __future__ import annotations

import torch

from groupcc.ops._checks import check_selection
from groupcc.ops._declare import LATER, Kernels, Op
from groupcc.ops.batchtopk.reference import Args, batchtopk_reference
from groupcc.ops.topk import OP as TOPK
from groupcc.ops.topk import Backward

__all__ = ["Args", "batchtopk"]


class _Batchtopk(Op[Args, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]):
    name = "batchtopk"
    reference = staticmethod(batchtopk_reference)
    gradients = TOPK.gradients

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.batchtopk import cpp

            return cpp
        from groupcc.ops.batchtopk import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pre_acts = args.pre_acts_NL
        shape = pre_acts.shape[0], torch.library.get_ctx().new_dynamic_size(min=1)
        return pre_acts.new_empty(shape), pre_acts.new_empty(shape, dtype=torch.int64), pre_acts.new_empty(())

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> Backward:
        return Backward(LATER, *outputs[:2], args.pre_acts_NL.shape[1])


OP = _Batchtopk()


def batchtopk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The N·k largest of the whole batch, then ReLU: pre_acts [N, L] → acts [N, K], indices int64 [N, K], threshold [].

    Ties go to the lower flat index. K, which the data decide, is the largest number of chosen entries of one row that
    the ReLU leaves (at least 1). Rows are sorted as `topk` sorts them and padded with act 0, index 0. `threshold` is
    the smallest chosen pre-activation (0 where that is negative); its running mean is what inference uses in place of
    the batch. Order of NaN and −0, dtypes and errors as in `topk`. Gradient: that of acts, scattered to the chosen
    positive entries; the threshold has none. Deterministic, and the same to the bit on every backend. Bussmann et al.
    2024 (arXiv:2412.06410), section 3.
    """
    check_selection(pre_acts, k)
    return OP(Args(pre_acts, k))
