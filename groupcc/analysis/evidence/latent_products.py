"""Sums over examples of latent acts times activations, from which estimates from data are made."""

from __future__ import annotations

import torch

from groupcc import ops
from groupcc.groups import Group
from groupcc.models import SparseLatents
from groupcc.ops import single_blocks

__all__ = ["latent_products", "of_latents"]


def of_latents(latents: SparseLatents, wanted: range) -> SparseLatents:
    """Returns the entries of the `wanted` latents, numbered from 0, in as many columns as one example needs."""
    inside = (latents.indices >= wanted.start) & (latents.indices < wanted.stop) & (latents.acts > 0)
    columns = max(int(inside.sum(1).max()), 1)
    order = inside.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :columns]
    inside = inside.gather(1, order)
    return SparseLatents(
        torch.where(inside, latents.acts.gather(1, order), 0.0),
        torch.where(inside, latents.indices.gather(1, order) - wanted.start, 0),
        None if latents.poses is None else latents.poses.gather(1, order),
    )


def latent_products(
    latents: SparseLatents, target_NGD: torch.Tensor, W_LGD: torch.Tensor, group: Group
) -> torch.Tensor:
    """Returns Σ_n f_l(x_n) y_n, [L, G, D]: the gradient in the decoder of ⟨what the latents write, y⟩.

    With poses each y is aligned: block b of a latent in pose h takes block g of y with gh = b.
    """
    with torch.enable_grad():
        W = W_LGD.detach().to(target_NGD.dtype).requires_grad_()
        values = latents.acts.to(W.dtype)
        if latents.poses is None:
            written = ops.sparse_decode(values, latents.indices, W)
        else:
            written = ops.sparse_decode(*single_blocks(values, latents.indices, latents.poses, W, group))
        return torch.autograd.grad(written, W, target_NGD.view_as(written))[0]
