"""decode_loss: active latents and the activations they stand for → squared error of every block, and the residual."""

from __future__ import annotations

import torch

from groupcc.errors import argument_error
from groupcc.ops._checks import check_latents
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops._dense_decode import dense_pays, tf32_matters
from groupcc.ops.decode_loss.reference import Args, decode_loss_reference
from groupcc.ops.orbit_gather import check_gather, orbit_gather
from groupcc.ops.sparse_decode import OP as SPARSE_DECODE
from groupcc.ops.sparse_decode import Backward

__all__ = ["Args", "decode_loss", "decode_loss_maps"]


class _DecodeLoss(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "decode_loss"
    differentiable = 2
    reference = staticmethod(decode_loss_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.decode_loss import cpp

            return cpp
        from groupcc.ops.decode_loss import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor]:
        target, W_dec = args.target, args.W_dec_LGD
        wide = torch.promote_types(target.dtype, torch.float32)
        return target.new_empty(W_dec.shape[1], dtype=wide), target.new_empty(args.acts_NK.shape[0], *W_dec.shape[1:])

    def reference_pays(self, args: Args) -> str | None:
        return dense_pays(args.acts_NK, args.W_dec_LGD)

    def also_reads(self, args: Args) -> bool:
        return tf32_matters(args.W_dec_LGD)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor]) -> Backward:
        """With the residual as the decode's gradient: the loss's is that, but for a scale for each block."""
        return Backward(outputs[1], LATER, *args[:3], need_bias=LATER)

    def gradients(
        self, record: Backward, saved: Saved, grad_loss: torch.Tensor | None, grad_residual: torch.Tensor | None
    ) -> dict[str, torch.Tensor | None]:
        residual, grads = record.grad_NGD, dict[str, torch.Tensor | None]()
        if grad_residual is not None or "target" in saved.needs:
            grad = torch.zeros_like(residual) if grad_residual is None else grad_residual
            if grad_loss is not None:
                grad = grad + (2 * grad_loss[:, None] * residual).to(residual.dtype)
            grads["target"] = -grad
        if saved.needs - {"target"}:
            record = record._replace(scale_G=None, need_bias="b_dec_GD" in saved.needs)
            if grad_residual is not None:
                record = record._replace(grad_NGD=grad)
            elif grad_loss is not None:
                record = record._replace(scale_G=2 * grad_loss)  # multiplied by the residual in the kernels
            grads["acts_NK"], grads["W_dec_LGD"], grads["b_dec_GD"] = SPARSE_DECODE.backward(record, saved.backend)
        return grads


OP = _DecodeLoss()


def decode_loss(
    acts: torch.Tensor, indices: torch.Tensor, W_dec: torch.Tensor, b_dec: torch.Tensor | None, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decodes as `sparse_decode` does, and measures the error: loss[g] = Σ_nd residual², residual = â − target.

    - `acts` [N, K], `indices` int64 [N, K], `W_dec` [L, G, D], `b_dec` [G, D] or None, `target` [N, G, D]: one dtype.
    - Returns loss [G], summed in fp32 (fp64 for fp64 inputs) and kept so, and the residual [N, G, D] in the dtype of
      `target`. The reconstruction is target + residual.
    - Gradients flow to `acts`, `W_dec`, `b_dec` and `target`, from either output. That of the loss alone is formed
      from the residual inside the kernel. The kernels' can't be differentiated again.

    Acts of 0, errors and determinism as in [`sparse_decode`][groupcc.ops.sparse_decode].
    """
    check_latents(acts, indices, W_dec, b_dec)
    _check_target("target", target, acts)
    expected = (acts.shape[0], *W_dec.shape[1:])
    if target.shape != expected:
        raise argument_error(
            "target",
            expected=f"[N, G, D] = {expected}",
            got=f"shape {tuple(target.shape)}",
            remedy="Pass the activations that acts and indices were encoded from.",
        )
    return OP(Args(acts, indices, W_dec, b_dec, target, None, ""))


def decode_loss_maps(
    acts: torch.Tensor,
    indices: torch.Tensor,
    W_dec: torch.Tensor,
    b_dec: torch.Tensor | None,
    maps: torch.Tensor,
    points: torch.Tensor,
    interpolation: str = "bilinear",
) -> tuple[torch.Tensor, torch.Tensor]:
    """`decode_loss` with target = `orbit_gather(maps, points, interpolation)`, which the kernels never store.

    `maps` [B, S, H, W, D] and `points` [G, P, 2] as there, with N = B·P. The kernels gather each target element once,
    where the residual is formed. Gathered beforehand it is where `maps` needs a gradient, and by the reference, which
    `auto` takes where a dense product costs less than a sparse decode. Errors also as in
    [`orbit_gather`][groupcc.ops.orbit_gather].
    """
    check_latents(acts, indices, W_dec, b_dec)
    check_gather(maps, points, interpolation)
    _check_target("maps", maps, acts)
    gathered = (maps.shape[0] * points.shape[1], points.shape[0], maps.shape[4])
    expected = (acts.shape[0], *W_dec.shape[1:])
    if gathered != expected:
        raise argument_error(
            "maps",
            expected=f"maps and points of [B·P, G, D] = {expected}",
            got=f"{gathered}",
            remedy="Pass the maps that acts and indices were encoded from.",
        )
    if maps.requires_grad and torch.is_grad_enabled():
        gathered_maps = orbit_gather(maps, points, interpolation)
        return OP(Args(acts, indices, W_dec, b_dec, gathered_maps, None, ""))
    return OP(Args(acts, indices, W_dec, b_dec, maps, points, interpolation))


def _check_target(name: str, target: torch.Tensor, acts: torch.Tensor) -> None:
    if target.dtype != acts.dtype:
        raise argument_error(
            name,
            expected=f"{acts.dtype}, as acts",
            got=f"{target.dtype}",
            remedy="Convert one of them.",
        )
