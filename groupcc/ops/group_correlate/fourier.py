"""group_correlate by the Fourier transform on the group in plain PyTorch: acts [N, G, D], W [L, G, D] → z [N, L, G].

ẑ(ρ) = â(ρ)ᵀ ŵ(ρ): one product for each irrep, of Σ_ρ d²c·N·L·D multiplications in all where the direct sum has
|G|²·N·L·D (D32: 124 for 4096). The transforms are products with matrices of |G| columns.
"""

from __future__ import annotations

import torch

from groupcc.ops._group_fourier import plan_of
from groupcc.ops.group_correlate.reference import Args

__all__ = ["group_correlate_fourier"]


def group_correlate_fourier(args: Args) -> torch.Tensor:
    """See `groupcc.ops.group_correlate`."""
    acts_NGD, W_LGD, group = args
    plan = plan_of(group, acts_NGD.dtype, acts_NGD.device)
    (N, _, D), L = acts_NGD.shape, W_LGD.shape[0]
    acts, W = plan.left @ acts_NGD, plan.right @ W_LGD
    spectra, a, w = [], 0, 0
    for B, d, c in plan.sizes:
        acts_BiNK = acts[:, a : a + B * d * d].view(N, B, d, d * D).permute(1, 2, 0, 3)
        W_BLK = W[:, w : w + B * c * d].view(L, B, c, d * D).permute(1, 0, 2, 3).reshape(B, L * c, d * D)
        product = acts_BiNK @ W_BLK.transpose(1, 2)[:, None]
        spectra.append(product.view(B, d, N, L, c).permute(2, 3, 0, 1, 4).reshape(N, L, B * d * c))
        a, w = a + B * d * d, w + B * c * d
    return torch.cat(spectra, dim=2) @ plan.inverse
