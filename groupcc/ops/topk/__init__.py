"""topk: the k largest pre-activations of each row."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.ops._checks import check_selection
from groupcc.ops._dispatch import Op
from groupcc.ops.topk.reference import topk_reference

__all__ = ["topk"]


@torch.library.custom_op("groupcc::topk", mutates_args=())
def _topk(pre_acts: torch.Tensor, k: int, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    return _op.launch(backend, "forward", pre_acts, k)


@_topk.register_fake
def _(pre_acts: torch.Tensor, k: int, backend: str) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (pre_acts.shape[0], k)
    return pre_acts.new_empty(shape), pre_acts.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("groupcc::topk_backward", mutates_args=())
def _topk_backward(
    grad_acts: torch.Tensor, acts: torch.Tensor, indices: torch.Tensor, n_latents: int, backend: str
) -> torch.Tensor:
    """Of batchtopk too."""
    return _op.launch(backend, "backward", grad_acts, acts, indices, n_latents)


@_topk_backward.register_fake
def _(grad_acts: torch.Tensor, acts: torch.Tensor, indices: torch.Tensor, n_latents: int, backend: str) -> torch.Tensor:
    return acts.new_empty(acts.shape[0], n_latents)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    pre_acts, _, ctx.backend = inputs
    ctx.n_latents = pre_acts.shape[1]
    ctx.save_for_backward(*output)


def _gradients(ctx: Any, grad_acts: torch.Tensor, _: Any) -> tuple[Any, ...]:
    acts, indices = ctx.saved_tensors
    return _topk_backward(grad_acts, acts, indices, ctx.n_latents, ctx.backend), None, None


_topk.register_autograd(_gradients, setup_context=_setup)
_op = Op("topk", topk_reference, _topk, ("cpp", "triton"))


def topk(pre_acts: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row, then ReLU: pre_acts [N, L] → acts [N, k], indices int64 [N, k].

    acts has the dtype of `pre_acts`: float32, float64, bfloat16 or float16. Rows are sorted by falling pre-activation;
    ties go to the lower index. NaN stands above infinity, −0 equals +0, and the ReLU leaves NaN as it is: nothing here
    looks for NaN, `GroupCrosscoder` checks its input. ArgumentError where k is not 1 to L. Gradient: that of acts,
    scattered to the chosen entries whose act is positive; where fewer than k of a row are, the rest pass none.
    Deterministic, and the same to the bit on every backend. Gao et al. 2024 (arXiv:2406.04093), section 2.3.
    """
    check_selection(pre_acts, k)
    return _op(pre_acts, k)
