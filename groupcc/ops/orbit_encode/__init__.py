"""orbit_encode: feature maps of an orbit → pre-activations, without the aligned activations in between."""

from __future__ import annotations

from typing import NamedTuple

import torch

from groupcc.ops._checks import wrong
from groupcc.ops._declare import LATER, Kernels, Op, Saved
from groupcc.ops.orbit_encode.reference import Args, orbit_encode_reference
from groupcc.ops.orbit_gather import check_gather

__all__ = ["Args", "Backward", "orbit_encode"]


class Backward(NamedTuple):
    """What the gradients are made from; `grad_NL` is 0 where the ReLU was."""

    grad_NL: torch.Tensor
    maps_BSHWD: torch.Tensor
    points_GP2: torch.Tensor
    W_enc_GDL: torch.Tensor
    positive_NL: torch.Tensor | None
    """The result, if it went through a ReLU; the kernels don't read it."""
    interpolation: str
    need_maps: bool


class _OrbitEncode(Op[Args, torch.Tensor]):
    name = "orbit_encode"
    reference = staticmethod(orbit_encode_reference)

    def import_kernels(self, backend: str) -> Kernels[Args]:
        if backend == "cpp":
            from groupcc.ops.orbit_encode import cpp

            return cpp
        from groupcc.ops.orbit_encode import triton

        return triton

    def outputs(self, args: Args) -> torch.Tensor:
        return args.maps_BSHWD.new_empty(args.maps_BSHWD.shape[0] * args.points_GP2.shape[1], args.W_enc_GDL.shape[2])

    def save(self, args: Args, output: torch.Tensor) -> Backward:
        maps, points, W_enc, _, interpolation, relu = args
        return Backward(LATER, maps, points, W_enc, output if relu else None, interpolation, LATER)

    def d_outputs(self, args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """d_maps, which has no elements unless needed; d_W_enc; d_b_enc."""
        d_maps = args.maps_BSHWD.new_empty(args.maps_BSHWD.shape if args.need_maps else (0,))
        return d_maps, torch.empty_like(args.W_enc_GDL), args.grad_NL.new_empty(args.W_enc_GDL.shape[2])

    def gradients(self, record: Backward, saved: Saved, grad: torch.Tensor) -> dict[str, torch.Tensor]:
        if record.positive_NL is not None:
            grad = torch.where(record.positive_NL > 0, grad, 0)
        need_maps = "maps_BSHWD" in saved.needs
        record = record._replace(grad_NL=grad, need_maps=need_maps, positive_NL=None)
        d_maps, d_W_enc, d_b_enc = self.backward(record, saved.backend)
        return {"maps_BSHWD": d_maps, "W_enc_GDL": d_W_enc, "b_enc_L": d_b_enc}


OP = _OrbitEncode()


def orbit_encode(
    maps: torch.Tensor,
    points: torch.Tensor,
    W_enc: torch.Tensor,
    b_enc: torch.Tensor,
    interpolation: str = "bilinear",
    relu: bool = False,
) -> torch.Tensor:
    """pre[b·P + p] = Σ_g a_g(b, p) W_enc[g] + b_enc with a = orbit_gather(maps, points): [B·P, L].

    - `maps` [B, S, H, W, D], `points` [G, P, 2], `interpolation`: as in [`orbit_gather`][groupcc.ops.orbit_gather].
    - `W_enc` [G, D, L], or [1, D, L] for an encoder that reads element 0 alone; `b_enc` [L]. Both in the dtype of
      `maps`, which is the result's. Any strides; a transposed view of contiguous [L, G, D] is not copied.
    - `relu`: max(pre, 0), NaN staying NaN.

    The kernels hold at most a block of the aligned activations at a time. Equal to orbit_gather and a matrix product up
    to the rounding of the sums. Gradients flow to `maps`, `W_enc` and `b_enc`, with `relu` only where the result is
    above 0. Errors: ArgumentError for shapes, dtypes, or points outside the map. Deterministic on the CPU.
    """
    check_gather(maps, points, interpolation)
    G, D = points.shape[0], maps.shape[-1]
    if W_enc.dim() != 3 or W_enc.shape[0] not in (min(1, G), G) or W_enc.shape[1] != D or W_enc.dtype != maps.dtype:
        raise wrong(
            "W_enc",
            W_enc,
            f"{maps.dtype} of shape [G or 1, D, L] = [{G} or {min(1, G)}, {D}, L]",
            "Maps, points and encoder must come from one group and one layer, in one dtype.",
        )
    if b_enc.shape != W_enc.shape[2:] or b_enc.dtype != maps.dtype:
        raise wrong(
            "b_enc",
            b_enc,
            f"{maps.dtype} of shape [L] = [{W_enc.shape[2]}]",
            "One bias for each latent, in the dtype of maps.",
        )
    return OP(Args(maps, points, W_enc, b_enc, interpolation, relu))
