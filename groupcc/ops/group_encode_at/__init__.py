"""group_encode_at: the acts of chosen base latents in chosen poses, with gradients that go to these alone."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops._checks import check_bias, check_blocks, check_poses, wrong
from groupcc.ops._declare import Kernels, Op, Saved
from groupcc.ops._single_blocks import single_blocks
from groupcc.ops.group_encode_at.reference import Args, group_encode_at_reference
from groupcc.ops.sparse_decode import OP as SPARSE_DECODE
from groupcc.ops.sparse_decode import Args as DecodeArgs

__all__ = ["OP", "Args", "Backward", "group_encode_at"]

SPARSE_UP_TO = 1.0
"""The sparse gradient costs less up to so many chosen poses an example for each base latent. There it takes at most a
third of the time of group_correlate, forward and backward, under D8 to D32 (`groupcc bench --only group_encode_at`)."""


class Backward(NamedTuple):
    """What the gradients to W_enc [L, G, D] and b_enc are made from; `grad_NK` is 0 where nothing is active."""

    grad_NK: torch.Tensor
    x_NGD: torch.Tensor
    indices_NK: torch.Tensor
    poses_NK: torch.Tensor
    L: int
    group: Group


class _Kept(NamedTuple):
    """What the forward pass keeps."""

    acts_NK: torch.Tensor
    x_NGD: torch.Tensor
    W_enc_LGD: torch.Tensor
    indices_NK: torch.Tensor
    poses_NK: torch.Tensor
    group: Group


class _GroupEncodeAt(Op[Args, torch.Tensor]):
    name = "group_encode_at"
    backends = ("cpp",)
    composed: ClassVar = {"triton": ("group_correlate",)}
    reference = staticmethod(group_encode_at_reference)

    def import_kernels(self, _: str) -> Kernels[Args]:
        from groupcc.ops.group_encode_at import cpp

        return cpp

    def outputs(self, args: Args) -> torch.Tensor:
        return args.x_NGD.new_empty(args.indices_NK.shape)

    def reference_pays(self, args: Args) -> str | None:
        if args.indices_NK.shape[1] <= SPARSE_UP_TO * len(args.W_enc_LGD):
            return None
        return f"above {SPARSE_UP_TO:g} chosen poses for each base latent, gradients to all of them cost less"

    def save(self, args: Args, acts: torch.Tensor) -> _Kept:
        return _Kept(acts, args.x_NGD, args.W_enc_LGD, args.indices_NK, args.poses_NK, args.group)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor]:
        return args.x_NGD.new_empty(args.L, *args.x_NGD.shape[1:]), args.x_NGD.new_empty(args.L)

    def gradients(self, kept: _Kept, saved: Saved, grad: torch.Tensor) -> dict[str, torch.Tensor | None]:
        acts, x, W_enc, indices, poses, group = kept
        grad, grads = grad.masked_fill(acts <= 0, 0), dict[str, torch.Tensor | None]()
        if "x_NGD" in saved.needs:
            blocks = DecodeArgs(*single_blocks(grad, indices, poses, W_enc, group), None)
            grads["x_NGD"] = SPARSE_DECODE.operator(blocks, saved.backend).view_as(x)
        if saved.needs - {"x_NGD"}:
            record = Backward(grad, x, indices, poses, len(W_enc), group)
            grads["W_enc_LGD"], grads["b_enc_L"] = self.backward(record, saved.backend)
        return grads


OP = _GroupEncodeAt()


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
    - `known` [N, K]: the acts, if the caller has computed and chosen them already. Then only their gradients are
      computed. Where `known` is 0 the act is 0, whatever index and pose stand there.
    - Returns acts [N, K] in the dtype of `x`.
    - Gradients to `x`, `W_enc` and `b_enc`, 0 where an act is 0. That to W_enc takes N·K·G·D multiplications; through
      `group_correlate` it takes Σ_ρ d³·N·L·D, whatever is chosen. `auto` takes the cheaper. "reference", "triton" and
      other devices choose from `group_correlate`. Gradients of kernels can't be differentiated again.
    - Deterministic on the CPU.

    ArgumentError for shapes and dtypes. For an index or pose that does not exist: IndexError in C++, RuntimeError in
    PyTorch.
    """
    check_poses(poses, indices)
    if x.dim() != 3 or x.shape[1] != group.order or not x.is_floating_point() or len(x) != len(indices):
        raise wrong(
            "x",
            x,
            f"a floating-point tensor [N, G, D] with N = {len(indices)} and G = {group.order}",
            "Pass the orbits that the latents were chosen for.",
        )
    check_blocks("W_enc", W_enc, x, group)
    check_bias("b_enc", b_enc, W_enc, len(W_enc), "One bias for each base latent.")
    if known is not None and (known.shape != indices.shape or known.dtype != x.dtype):
        raise wrong(
            "known",
            known,
            f"{x.dtype} of shape [N, K] = {tuple(indices.shape)}, or None",
            "One act for each of indices.",
        )
    return OP(Args(x, W_enc, b_enc, indices, poses, None if known is None else known.detach(), group))
