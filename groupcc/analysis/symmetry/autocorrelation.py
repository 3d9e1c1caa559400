"""Autocorrelation of a latent over the group: how much of it stays itself under right translation."""

from __future__ import annotations

import torch

from groupcc.analysis.symmetry.blocks import latent_step
from groupcc.groups import Group

__all__ = ["autocorrelation", "translate"]


def translate(d_GD: torch.Tensor, group: Group, h: int) -> torch.Tensor:
    """(R_h d)_g = d_{gh}, right translation by h: [..., G, D] → [..., G, D].

    R_h R_k = R_{hk}. An orbit of x becomes the orbit of T_h x (the translation law), so R_h d is what the latent d
    looks like on an image that h has transformed.
    """
    index = torch.tensor(group.right_translation[h], device=d_GD.device)
    return d_GD.index_select(-2, index)


def autocorrelation(W_dec_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """C(h) = ⟨d, R_h d⟩ / ‖d‖² = Σ_g ⟨d_g, d_{gh}⟩ / Σ_g ‖d_g‖²: [L, G, D] → [L, G] in [−1, 1].

    C(e) = 1 and C(h) = C(h⁻¹). A latent of zeros has C = 0 everywhere, also at e. Not centred: a decoder whose blocks
    share a large common part has a high C everywhere; the power spectrum tells how much of it varies. Computed in the
    dtype of `W_dec_LGD` from each latent's |G|×|G| Gram matrix, some latents at a time.
    """
    latents, order, d_in = W_dec_LGD.shape
    index = torch.tensor(group.cayley, device=W_dec_LGD.device)  # [g, h] -> gh
    C_LG = W_dec_LGD.new_zeros(latents, order)
    step = latent_step(latents, group, d_in)
    for start in range(0, latents, step):
        block = W_dec_LGD[start : start + step]
        # Scaled first: the squares of tiny weights would leave the range of fp32.
        scale = block.abs().amax(dim=(1, 2), keepdim=True)
        block = block / torch.where(scale > 0, scale, torch.ones_like(scale))
        gram = block @ block.mT
        sums = gram.gather(2, index.expand(len(block), -1, -1)).sum(1)
        power = sums[:, :1]
        C_LG[start : start + step] = sums / torch.where(power > 0, power, torch.ones_like(power))
    return C_LG.clamp_(-1.0, 1.0)
