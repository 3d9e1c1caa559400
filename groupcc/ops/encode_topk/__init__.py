"""encode_topk: the k most active latents of each example, straight from what the encoder reads."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops._checks import check_k, wrong
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops.encode_topk.reference import Args, encode_topk_reference

__all__ = ["Args", "Backward", "encode_topk"]


class Backward(NamedTuple):
    """What the gradients are made from."""

    grad_acts_NK: torch.Tensor
    acts_NK: torch.Tensor
    indices_NK: torch.Tensor
    x_NM: torch.Tensor
    W_enc_ML: torch.Tensor
    need_x: bool


class _EncodeTopk(Op[Args, tuple[torch.Tensor, torch.Tensor]]):
    name = "encode_topk"
    reference = staticmethod(encode_topk_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.encode_topk import cpp

            return cpp
        from groupcc.ops.encode_topk import triton

        return triton

    def outputs(self, args: Args) -> tuple[torch.Tensor, torch.Tensor]:
        shape = args.x_NM.shape[0], args.k
        return args.x_NM.new_empty(shape), args.x_NM.new_empty(shape, dtype=torch.int64)

    def save(self, args: Args, outputs: tuple[torch.Tensor, torch.Tensor]) -> Backward:
        return Backward(LATER, *outputs, args.x_NM, args.W_enc_ML, need_x=LATER)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """d_x, of no examples unless needed; d_W_enc, latent-major; d_b_enc."""
        M, L = args.W_enc_ML.shape
        d_x = args.x_NM.new_empty(args.x_NM.shape if args.need_x else (0, M))
        return d_x, args.W_enc_ML.new_empty(L, M).t(), args.W_enc_ML.new_empty(L)

    def gradients(self, record: Backward, saved: Saved, grad_acts: torch.Tensor, _: object) -> dict[str, torch.Tensor]:
        need_x = "x_NM" in saved.needs
        d_x, d_W, d_b = self.backward(record._replace(grad_acts_NK=grad_acts, need_x=need_x), saved.backend)
        return {"x_NM": d_x, "W_enc_ML": d_W, "b_enc_L": d_b}


OP = _EncodeTopk()


def encode_topk(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The k largest of each row of x @ W_enc + b_enc, then ReLU: [N, M], [M, L], [L] → acts [N, k], int64 [N, k].

    Order, ties, NaN and the ReLU's mask are those of [`topk`][groupcc.ops.topk] of the pre-activations. The kernels
    never have the pre-activations [N, L] in memory whole; the reference has. Kernels and reference differ by the
    rounding of the products, so two latents closer than that may change places.

    - `x`, `W_enc` and `b_enc` have one floating dtype, any strides. W_enc is read fastest if it is the transpose of a
      contiguous [L, M]; its gradient is laid out so.
    - Gradients: those of acts that are positive, to `x`, `W_enc` and `b_enc`.
    - "triton" takes k up to 512, and no float64.
    - Deterministic.

    ArgumentError for shapes, dtypes, or k outside 1 to L.
    """
    _check(x, W_enc, b_enc, k)
    return OP(Args(x, W_enc, b_enc, k))


def _check(x: torch.Tensor, W_enc: torch.Tensor, b_enc: torch.Tensor, k: int) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise wrong(
            "x", x, "a floating-point tensor [N, M]", "Flatten the blocks that the encoder reads: acts.flatten(1)."
        )
    if W_enc.dim() != 2 or W_enc.shape[0] != x.shape[1] or W_enc.dtype != x.dtype:
        raise wrong(
            "W_enc",
            W_enc,
            f"{x.dtype} of shape [M, L] = [{x.shape[1]}, L]",
            "Flatten its blocks as those of x, and convert one of them.",
        )
    L = W_enc.shape[1]
    if b_enc.shape != (L,) or b_enc.dtype != x.dtype:
        raise wrong("b_enc", b_enc, f"{x.dtype} of shape [L] = [{L}]", "One bias for each column of W_enc.")
    check_k(k, L)
