"""What the launchers of csrc/sparse_decode.cpp and csrc/decode_loss.cpp share: acts as summed, the gradients."""

from __future__ import annotations

import torch

from groupcc.ops.native import _C, DTYPES, empty, threads

__all__ = ["address", "gradients", "widened"]


def widened(acts_NK: torch.Tensor) -> torch.Tensor:
    """Contiguous, in the type that the kernels sum in."""
    return acts_NK.to(torch.promote_types(acts_NK.dtype, torch.float32)).contiguous()


def address(tensor: torch.Tensor | None) -> int:
    """Where the tensor's elements lie, 0 for None."""
    return 0 if tensor is None else tensor.data_ptr()


def gradients(
    grad_NGD: torch.Tensor,
    scale_GD: torch.Tensor | None,
    acts_NK: torch.Tensor,
    indices_NK: torch.Tensor,
    W_dec_LGD: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """d_acts [N, K], d_W_dec [L, G, D], d_b_dec [G, D] of a reconstruction whose gradient is scale · grad."""
    acts, indices = widened(acts_NK), indices_NK.contiguous()
    grad, W_dec = grad_NGD.contiguous(), W_dec_LGD.contiguous()
    (N, K), (L, G, D) = acts.shape, W_dec.shape
    d_acts = torch.empty_like(acts)
    d_W_dec = empty((L, G, D), W_dec.dtype)
    d_b_dec = acts.new_empty(G, D)
    _C.sparse_decode_backward(
        grad.data_ptr(),
        address(scale_GD),
        acts.data_ptr(),
        indices.data_ptr(),
        W_dec.data_ptr(),
        d_acts.data_ptr(),
        d_W_dec.data_ptr(),
        d_b_dec.data_ptr(),
        N,
        K,
        L,
        G * D,
        DTYPES[W_dec.dtype],
        threads(),
    )
    return d_acts.to(acts_NK.dtype), d_W_dec, d_b_dec.to(W_dec.dtype)
