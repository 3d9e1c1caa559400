"""group_correlate_max: the strongest pose of each base latent in an orbit, without the other poses in memory."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._dispatch import Op
from groupcc.ops.group_correlate import check_correlate, coefficient_counts
from groupcc.ops.group_correlate_max.reference import group_correlate_max_reference

__all__ = ["group_correlate_max", "keeps_no_poses"]


@torch.library.custom_op("groupcc::group_correlate_max", mutates_args=())
def _group_correlate_max(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values and poses [N, L], and the coefficients of acts and of W, for the gradients; "cpp" has none of these."""
    return _op.launch(backend, "forward", acts, W, b, group_named(group))


@_group_correlate_max.register_fake
def _(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    (N, _, D), L = acts.shape, W.shape[0]
    of_acts, of_W = coefficient_counts(group_named(group))
    poses = acts.new_empty(N, L, dtype=torch.int64)
    if backend == "cpp":
        return acts.new_empty(N, L), poses, acts.new_empty(0), acts.new_empty(0)
    return acts.new_empty(N, L), poses, acts.new_empty(N * of_acts * D), acts.new_empty(L * of_W * D)


@torch.library.custom_op("groupcc::group_correlate_max_backward", mutates_args=())
def _group_correlate_max_backward(
    grad: torch.Tensor,
    poses: torch.Tensor,
    acts: torch.Tensor,
    W: torch.Tensor,
    D: int,
    group: str,
    need_acts: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (of no examples unless `need_acts`) and d_W, from the coefficients of acts and W."""
    return _op.launch(backend, "backward", grad, poses, acts, W, D, group_named(group), need_acts)


@_group_correlate_max_backward.register_fake
def _(
    grad: torch.Tensor,
    poses: torch.Tensor,
    acts: torch.Tensor,
    W: torch.Tensor,
    D: int,
    group: str,
    need_acts: bool,
    backend: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    (N, L), G = grad.shape, group_named(group).order
    return grad.new_empty(N if need_acts else 0, G, D), grad.new_empty(L, G, D)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    acts, _, _, ctx.group, ctx.backend = inputs
    ctx.D = acts.shape[2]
    _, poses, acts_hat, W_hat = output
    ctx.mark_non_differentiable(poses, acts_hat, W_hat)
    ctx.set_materialize_grads(False)  # zeros for the coefficients, larger than acts
    ctx.save_for_backward(poses, acts_hat, W_hat)


def _gradients(ctx: Any, grad: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 5
    need_acts, need_W, need_b, *_rest = ctx.needs_input_grad
    d_b = grad.sum(0) if need_b else None
    if not (need_acts or need_W):
        return None, None, d_b, None, None
    d_acts, d_W = _group_correlate_max_backward(grad, *ctx.saved_tensors, ctx.D, ctx.group, need_acts, ctx.backend)
    return d_acts if need_acts else None, d_W if need_W else None, d_b, None, None


_group_correlate_max.register_autograd(_gradients, setup_context=_setup)


def _compiled(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: Group, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    if backend == "cpp" and _needs_gradient(acts, W, b):
        return group_correlate_max_reference(acts, W, b, group)
    return _group_correlate_max(acts, W, b, group.name, backend)[:2]


_op = Op("group_correlate_max", group_correlate_max_reference, _compiled, ("cpp", "triton"))


def _needs_gradient(*tensors: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def group_correlate_max(
    acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: Group
) -> tuple[torch.Tensor, torch.Tensor]:
    """max_h and argmax_h of z[n, l, h] + b[l], z = group_correlate(acts, W, group): values, int64 poses, both [N, L].

    `acts` [N, G, D], `W` [L, G, D], `b` [L], in one floating dtype, which is that of the values. Of equal values the
    lower element; NaN is the largest. "triton" keeps z in registers, adds in fp32 and rounds once; "cpp" keeps z in the
    cache where no gradient is asked for; elsewhere z [N, L, G] is formed and its maximum taken, so poses whose values
    differ by less than z's rounding may change places between backends. Gradients: a value's goes to its pose, in
    `acts`, `W` and `b`; kernels differentiate once. Deterministic on the CPU.

    ArgumentError for shapes and dtypes.
    """
    check_correlate(acts, W, group)
    if b.shape != W.shape[:1] or b.dtype != acts.dtype:
        raise argument_error(
            "b",
            expected=f"{acts.dtype} of shape [L] = [{len(W)}]",
            got=f"{b.dtype} of shape {tuple(b.shape)}",
            remedy="One bias for each base latent, in the dtype of acts.",
        )
    return _op(acts, W, b, group)


def keeps_no_poses(acts: torch.Tensor, W: torch.Tensor, b: torch.Tensor, group: Group) -> bool:
    """Whether `group_correlate_max` leaves z [N, L, G] out of memory; a caller with more use for z forms it if not."""
    chosen = _op.choose(acts, W, b, group)
    return chosen == "triton" or (chosen == "cpp" and not _needs_gradient(acts, W, b))
