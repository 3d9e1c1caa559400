"""sparse_decode on GPUs: acts [N, K], indices [N, K], W_dec [L, G, D], b_dec [G, D] → [N, G, D], and back."""

from __future__ import annotations

import torch

from groupcc.ops._triton import launch
from groupcc.ops._triton.decode import decode
from groupcc.ops._triton.latent_sum import latent_sum, too_wide
from groupcc.ops._triton.row_dots import row_dots
from groupcc.ops.sparse_decode import Args, Backward

__all__ = ["backward", "forward", "unsupported"]


def unsupported(args: Args) -> str | None:
    return launch.why_not(args) or too_wide(args.W_dec_LGD)


def forward(args: Args) -> torch.Tensor:
    return decode(*args)


def backward(args: Backward) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of decode_loss too."""
    L, G, D = args.W_dec_LGD.shape
    grad, W_dec = args.grad_NGD.reshape(-1, G * D), args.W_dec_LGD.reshape(L, G * D)
    scale = None if args.scale_G is None else args.scale_G.repeat_interleave(D)
    d_acts = row_dots(grad, args.indices_NK, W_dec, scale)
    sums = latent_sum(args.acts_NK, args.indices_NK, grad, L, scale=scale, columns=args.need_bias)
    d_b_dec = W_dec.new_empty(0) if sums.columns is None else sums.columns.view(G, D)
    return d_acts, sums.rows.view(L, G, D), d_b_dec
