"""batchtopk: the N·k largest pre-activations of a batch."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.ops._checks import check_selection
from groupcc.ops._dispatch import Op
from groupcc.ops.batchtopk.reference import batchtopk_reference

__all__ = ["batchtopk"]


@torch.library.custom_op("groupcc::batchtopk", mutates_args=())
def _batchtopk(pre_acts: torch.Tensor, k: int, backend: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "forward", pre_acts, k)


@_batchtopk.register_fake
def _(pre_acts: torch.Tensor, k: int, backend: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    shape = (pre_acts.shape[0], torch.library.get_ctx().new_dynamic_size(min=1))
    return pre_acts.new_empty(shape), pre_acts.new_empty(shape, dtype=torch.int64), pre_acts.new_empty(())


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    pre_acts, _, ctx.backend = inputs
    ctx.n_latents = pre_acts.shape[1]
    acts, indices, threshold = output
    ctx.mark_non_differentiable(indices, threshold)
    ctx.save_for_backward(acts, indices)


def _gradients(ctx: Any, grad_acts: torch.Tensor, *_: Any) -> tuple[Any, ...]:
    acts, indices = ctx.saved_tensors
    d_pre_acts = torch.ops.groupcc.topk_backward(grad_acts, acts, indices, ctx.n_latents, ctx.backend)
    return d_pre_acts, None, None


_batchtopk.register_autograd(_gradients, setup_context=_setup)
_op = Op("batchtopk", batchtopk_reference, _batchtopk, ("cpp", "triton"))


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
    return _op(pre_acts, k)
