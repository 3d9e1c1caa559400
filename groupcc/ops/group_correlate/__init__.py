"""group_correlate: how well each translate of each base latent matches an orbit."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.groups.translate import translation_table
from groupcc.ops.backend import Op, current_backend
from groupcc.ops.group_blocks import check_blocks
from groupcc.ops.group_correlate.fourier import group_correlate_fourier
from groupcc.ops.group_correlate.plan import Plan, by_size, coefficient_counts, plan_of, saves_too_little
from groupcc.ops.group_correlate.reference import group_correlate_reference

__all__ = [
    "Plan",
    "by_size",
    "check_correlate",
    "coefficient_counts",
    "group_correlate",
    "plan_of",
    "saves_too_little",
]


@torch.library.custom_op("groupcc::group_correlate", mutates_args=())
def _group_correlate(
    acts: torch.Tensor, W: torch.Tensor, group: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """z [N, L, G], laid out as [N, G, L], and the coefficients of acts and of W, for the gradients."""
    return _op.launch(backend, "forward", acts, W, group_named(group))


@_group_correlate.register_fake
def _(acts: torch.Tensor, W: torch.Tensor, group: str, backend: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    (N, G, D), L = acts.shape, W.shape[0]
    of_acts, of_W = coefficient_counts(group_named(group))
    z = acts.new_empty(N, G, L).transpose(1, 2)
    return z, acts.new_empty(N * of_acts * D), acts.new_empty(L * of_W * D)


@torch.library.custom_op("groupcc::group_correlate_backward", mutates_args=())
def _group_correlate_backward(
    grad: torch.Tensor, acts: torch.Tensor, W: torch.Tensor, D: int, group: str, need_acts: bool, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_acts [N, G, D] (of no examples unless `need_acts`) and d_W, from the coefficients of acts and W."""
    return _op.launch(backend, "backward", grad, acts, W, D, group_named(group), need_acts)


@_group_correlate_backward.register_fake
def _(
    grad: torch.Tensor, acts: torch.Tensor, W: torch.Tensor, D: int, group: str, need_acts: bool, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    N, L, G = grad.shape
    return grad.new_empty(N if need_acts else 0, G, D), grad.new_empty(L, G, D)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
    acts, _, ctx.group, ctx.backend = inputs
    ctx.D = acts.shape[2]
    _, acts_hat, W_hat = output
    ctx.mark_non_differentiable(acts_hat, W_hat)
    ctx.set_materialize_grads(False)  # zeros for the coefficients, larger than acts
    ctx.save_for_backward(acts_hat, W_hat)


def _gradients(ctx: Any, grad: torch.Tensor | None, *_: Any) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 4
    need_acts, need_W, *_rest = ctx.needs_input_grad
    d_acts, d_W = _group_correlate_backward(grad, *ctx.saved_tensors, ctx.D, ctx.group, need_acts, ctx.backend)
    return d_acts if need_acts else None, d_W if need_W else None, None, None


_group_correlate.register_autograd(_gradients, setup_context=_setup)


def _plain(acts: torch.Tensor, W: torch.Tensor, group: Group) -> torch.Tensor:
    """In PyTorch: the direct sum where the reference was asked for, or where the transform would not pay."""
    if current_backend() == "reference" or saves_too_little(group):
        return group_correlate_reference(acts, W, translation_table(group, acts.device))
    return group_correlate_fourier(acts, W, group)


def _compiled(acts: torch.Tensor, W: torch.Tensor, group: Group, backend: str) -> torch.Tensor:
    return _group_correlate(acts, W, group.name, backend)[0]


_op = Op("group_correlate", _plain, _compiled, ("cpp", "triton"))


def group_correlate(acts: torch.Tensor, W: torch.Tensor, group: Group) -> torch.Tensor:
    """z[n, l, h] = Σ_g ⟨W[l, gh], acts[n, g]⟩: [N, G, D], [L, G, D] → [N, L, G].

    The inner product of each orbit with every translate R_h W_l, (R_h w)_g = w_{gh}: a correlation on the group.
    Backend "reference" takes the sum as it stands, |G|²·N·L·D multiplications. The others take the Fourier transform
    on the group, Σ_ρ d³·N·L·D and two small transforms, 33 times fewer for D32: "cpp" and "triton" with transforms of
    their own, `auto` where neither runs in PyTorch's products, and the direct sum for groups too small to gain. One
    floating dtype for both; the ways differ by roundings, about 1e-6 of the largest z in fp32. Gradients to `acts`
    and `W`; compiled backends differentiate once. Deterministic on the CPU. Strides of the result are not fixed.

    ArgumentError for shapes and dtypes.
    """
    check_correlate(acts, W, group)
    return _op(acts, W, group)


def check_correlate(acts: torch.Tensor, W: torch.Tensor, group: Group) -> None:
    """Shapes and dtypes are what `group_correlate` takes, or ArgumentError."""
    if acts.dim() != 3 or acts.shape[1] != group.order or not acts.is_floating_point():
        raise argument_error(
            "acts",
            expected=f"a floating-point tensor [N, G, D] with G = {group.order}, the order of {group}",
            got=f"{acts.dtype} of shape {tuple(acts.shape)}",
            remedy="Pass orbits of this group.",
        )
    check_blocks("W", W, acts, group)
