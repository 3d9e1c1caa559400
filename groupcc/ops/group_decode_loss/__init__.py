"""group_decode_loss: active base latents in poses and the orbits they stand for → squared error, and the residual."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch

from groupcc.groups import Group
from groupcc.ops._checks import check_blocks, check_poses, wrong
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._dispatch import needs_gradient
from groupcc.ops.group_decode_loss.reference import Args, group_decode_loss_reference

__all__ = ["Args", "Backward", "group_decode_loss"]


class Backward(NamedTuple):
    """What the gradients are made from. That of the decode is scale · grad, or grad alone.

    `dots` are the inner products of grad with the latents in their poses, `column_sums` its sum over examples and
    blocks; None if the forward pass has not left them.
    """

    grad_NGD: torch.Tensor
    scale: torch.Tensor | None
    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    poses_NK: torch.Tensor
    W_dec_LGD: torch.Tensor
    dots_NK: torch.Tensor | None
    column_sums_D: torch.Tensor | None
    need_acts: bool
    need_bias: bool
    group: Group


class _GroupDecodeLoss(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "group_decode_loss"
    backends = ("cpp",)
    composed: ClassVar = {"triton": ("decode_loss",)}
    differentiable = 2
    results = slice(2)
    reference = staticmethod(group_decode_loss_reference)

    def import_kernels(self, _: str) -> Kernels[Args]:
        from groupcc.ops.group_decode_loss import cpp

        return cpp

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, residual [N, G, D], dots [N, K] and column_sums [D].

        `dots[n, k]` is the inner product of the residual with the k-th active latent, `column_sums` the residual's sum
        over examples and blocks. The gradients of acts and b_dec start from them; each is empty unless its gradient is
        needed.
        """
        target, (N, K), D = args.target_NGD, args.acts_NK.shape, args.W_dec_LGD.shape[2]
        wide = torch.promote_types(target.dtype, torch.float32)
        dots = target.new_empty(N if args.need_acts else 0, K, dtype=wide)
        column_sums = target.new_empty(D if args.need_bias else 0, dtype=wide)
        return target.new_empty((), dtype=wide), target.new_empty(target.shape), dots, column_sums

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]) -> Backward:
        """With the residual as the gradient of the decode: what the loss alone makes of it, up to a scale."""
        _, residual, dots, column_sums = outputs
        known = dots if args.need_acts else None, column_sums if args.need_bias else None
        return Backward(residual, LATER, *args[:4], *known, LATER, LATER, args.group)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """d_acts, d_W_dec and d_b_dec [1, D]; the first and the last are empty unless needed."""
        (N, K), W_dec = args.acts_NK.shape, args.W_dec_LGD
        d_acts = args.acts_NK.new_empty(N if args.need_acts else 0, K)
        return d_acts, W_dec.new_empty(W_dec.shape), W_dec.new_empty(1 if args.need_bias else 0, W_dec.shape[2])

    def gradients(
        self,
        record: Backward,
        saved: Saved,
        grad_loss: torch.Tensor | None,
        grad_residual: torch.Tensor | None,
        *_: None,
    ) -> dict[str, torch.Tensor | None]:
        residual, grads = record.grad_NGD, dict[str, torch.Tensor | None]()
        if grad_residual is not None or "target_NGD" in saved.needs:
            grad = torch.zeros_like(residual) if grad_residual is None else grad_residual
            if grad_loss is not None:
                grad = grad + (2 * grad_loss * residual).to(residual.dtype)
            grads["target_NGD"] = -grad
        if saved.needs - {"target_NGD"}:
            record = record._replace(need_acts="acts_NK" in saved.needs, need_bias="b_dec_1D" in saved.needs)
            if grad_residual is not None:
                record = record._replace(grad_NGD=grad, dots_NK=None, column_sums_D=None)
            elif grad_loss is not None:
                record = record._replace(scale=2 * grad_loss)  # its product with the residual is never formed
            grads["acts_NK"], grads["W_dec_LGD"], grads["b_dec_1D"] = self.backward(record, saved.backend)
        return grads


OP = _GroupDecodeLoss()


def group_decode_loss(
    acts: torch.Tensor,
    indices: torch.Tensor,
    poses: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    target: torch.Tensor,
    group: Group,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes base latents in poses, â[n, g] = Σ_k acts[n, k] · W_dec[indices[n, k], g·poses[n, k]] + b_dec, and
    measures the error: Σ residual², residual = â − target.

    - `acts` [N, K], `indices` and `poses` int64 [N, K], `W_dec` [L, G, D] (base latents), `b_dec` [1, D] (one for all
      blocks) or None, `target` [N, G, D]: one dtype. A base latent may stand in several poses.
    - Returns the loss, a scalar summed in fp32 or wider, and the residual [N, G, D] in the dtype of `target`.
    - Gradients flow to `acts`, `W_dec`, `b_dec` and `target`, from either output; the kernels' can't be differentiated
      again.

    Multiplications: N·K·G·D, and twice that backward; the atoms R_h W_dec[l] are never formed. "cpp" reads each base
    latent in all its poses from the cache; elsewhere it is `decode_loss` of N·G examples of one block. Acts of 0,
    errors and determinism as in [`sparse_decode`][groupcc.ops.sparse_decode]; for a pose outside 0 to G - 1
    IndexError in C++. Tied dictionaries: design of groupcc, after the translation law of Gorton 2024, section 2.
    """
    check_poses(poses, indices)
    if acts.shape != indices.shape or acts.dtype != target.dtype:
        raise wrong(
            "acts",
            acts,
            f"{target.dtype} of shape [N, K] = {tuple(indices.shape)}",
            "One act for each of indices, in the dtype of target.",
        )
    if target.dim() != 3 or len(target) != len(acts) or not target.is_floating_point():
        raise wrong(
            "target",
            target,
            f"a floating-point tensor [N, G, D] with N = {len(acts)}",
            "Pass the activations that acts were encoded from.",
        )
    check_blocks("W_dec", W_dec, target, group)
    if b_dec is not None and (b_dec.shape != (1, W_dec.shape[2]) or b_dec.dtype != W_dec.dtype):
        raise wrong(
            "b_dec",
            b_dec,
            f"{W_dec.dtype} of shape [1, D] = [1, {W_dec.shape[2]}], or None",
            "One bias for all blocks: that of every pose is the same.",
        )
    # Gradients of the loss alone are prepared; others are formed when they are asked for.
    needs = needs_gradient((acts,)), needs_gradient((b_dec,))
    return OP(Args(acts, indices, poses, W_dec, b_dec, target, group, *needs))
