"""group_encode_at: the acts of chosen base latents in chosen poses, with gradients that go to these alone."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.errors import argument_error
from groupcc.groups import Group
from groupcc.groups import group as group_named
from groupcc.ops._dispatch import Op, current_backend
from groupcc.ops._group_blocks import check_blocks, check_poses, single_blocks
from groupcc.ops.group_correlate import group_correlate
from groupcc.ops.sparse_decode import sparse_decode

__all__ = ["group_encode_at", "sparse_gradient_pays"]


@torch.library.custom_op("groupcc::group_encode_at", mutates_args=())
def _group_encode_at(
    x: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    known: torch.Tensor | None,
    group: str,
    backend: str,
) -> torch.Tensor:
    if known is not None:
        return known.clone(memory_format=torch.contiguous_format)
    return _op.launch(backend, "forward", x, W_enc, b_enc, indices, poses, group_named(group))


@_group_encode_at.register_fake
def _(
    x: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    known: torch.Tensor | None,
    group: str,
    backend: str,
) -> torch.Tensor:
    return x.new_empty(indices.shape)


@torch.library.custom_op("groupcc::group_encode_at_backward", mutates_args=())
def _group_encode_at_backward(
    grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor, poses: torch.Tensor, L: int, group: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """d_W_enc and d_b_enc, of `grad` that is 0 where nothing is active."""
    return _op.launch(backend, "backward", grad, x, indices, poses, L, group_named(group))


@_group_encode_at_backward.register_fake
def _(
    grad: torch.Tensor, x: torch.Tensor, indices: torch.Tensor, poses: torch.Tensor, L: int, group: str, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return x.new_empty(L, *x.shape[1:]), x.new_empty(L)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    x, W_enc, _, indices, poses, _, ctx.group, ctx.backend = inputs
    ctx.save_for_backward(output, x, W_enc, indices, poses)


def _gradients(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
    acts, x, W_enc, indices, poses = ctx.saved_tensors
    grad = grad.masked_fill(acts <= 0, 0)
    d_x = d_W_enc = d_b_enc = None
    if ctx.needs_input_grad[0]:
        blocks = single_blocks(grad, indices, poses, W_enc, group_named(ctx.group))
        d_x = sparse_decode(*blocks).view_as(x)
    if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
        d_W_enc, d_b_enc = _group_encode_at_backward(grad, x, indices, poses, len(W_enc), ctx.group, ctx.backend)
    return d_x, d_W_enc, d_b_enc, None, None, None, None, None


_group_encode_at.register_autograd(_gradients, setup_context=_setup)


def _dense(
    x: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    known: torch.Tensor | None,
    group: Group,
) -> torch.Tensor:
    """Chosen from the pre-activations of every base latent in every pose."""
    pre_NLG = group_correlate(x, W_enc, group) + b_enc[:, None]
    acts = torch.relu(pre_NLG[torch.arange(len(x), device=x.device)[:, None], indices, poses])
    return acts if known is None else acts.masked_fill(known <= 0, 0)


def _compiled(
    x: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    known: torch.Tensor | None,
    group: Group,
    backend: str,
) -> torch.Tensor:
    return _group_encode_at(x, W_enc, b_enc, indices, poses, known, group.name, backend)


_op = Op("group_encode_at", _dense, _compiled, ("cpp",))


def sparse_gradient_pays(x: torch.Tensor, W_enc: torch.Tensor, k: int, group: Group) -> bool:
    """Whether the gradient to W_enc of k chosen poses an example is cheaper by `group_encode_at` than by
    `group_correlate`, on the backend in force."""
    if current_backend() in ("reference", "triton"):
        return False
    nothing = torch.empty(0, k, dtype=torch.int64, device=x.device)
    return _op.choose(x, W_enc, x, nothing, nothing, None, group) == "cpp"


def group_encode_at(
    x: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    group: Group,
    *,
    known: torch.Tensor | None = None,
) -> torch.Tensor:
    """acts[n, k] = max(0, Σ_g ⟨W_enc[l, gh], x[n, g]⟩ + b_enc[l]) for l = indices[n, k], h = poses[n, k].

    - `x` [N, G, D], `W_enc` [L, G, D] (base latents), `b_enc` [L]: one floating dtype; `indices`, `poses` int64 [N, K].
    - `known` [N, K]: the acts, where the caller has them already (`group_correlate` without gradient, and a choice);
      then only gradients are left to compute. Where it is 0 the act is 0, whatever index and pose stand there.
    - Returns acts [N, K] in the dtype of `x`.

    Gradients to `x`, `W_enc` and `b_enc`, 0 where an act is 0: N·K·G·D multiplications for W_enc, where
    `group_correlate`'s take Σ_ρ d³·N·L·D whatever is chosen. `auto` takes the cheaper; "reference" and other devices
    choose from `group_correlate`. The kernels' can't be differentiated again. Deterministic on the CPU. ArgumentError
    for shapes and dtypes; for an index or pose that does not exist IndexError in C++, RuntimeError in PyTorch.
    """
    check_poses(poses, indices)
    if x.dim() != 3 or x.shape[1] != group.order or not x.is_floating_point() or len(x) != len(indices):
        raise argument_error(
            "x",
            expected=f"a floating-point tensor [N, G, D] with N = {len(indices)} and G = {group.order}",
            got=f"{x.dtype} of shape {tuple(x.shape)}",
            remedy="Pass the orbits that the latents were chosen for.",
        )
    check_blocks("W_enc", W_enc, x, group)
    if b_enc.shape != W_enc.shape[:1] or b_enc.dtype != W_enc.dtype:
        raise argument_error(
            "b_enc",
            expected=f"{W_enc.dtype} of shape [L] = [{len(W_enc)}]",
            got=f"{b_enc.dtype} of shape {tuple(b_enc.shape)}",
            remedy="One bias for each base latent.",
        )
    if known is not None and (known.shape != indices.shape or known.dtype != x.dtype):
        raise argument_error(
            "known",
            expected=f"{x.dtype} of shape [N, K] = {tuple(indices.shape)}, or None",
            got=f"{known.dtype} of shape {tuple(known.shape)}",
            remedy="One act for each of indices.",
        )
    if current_backend() == "triton":  # group_correlate has the kernels
        return _dense(x, W_enc, b_enc, indices, poses, known, group)
    return _op(x, W_enc, b_enc, indices, poses, None if known is None else known.detach(), group)
