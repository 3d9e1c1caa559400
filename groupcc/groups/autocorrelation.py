"""Autocorrelation over the group: how much of a dictionary's latent stays itself under right translation."""

from __future__ import annotations

import torch

from groupcc.groups.algebra import Group

__all__ = ["MAX_BLOCK_NUMBERS", "autocorrelation", "latent_step", "translated_sums"]

MAX_BLOCK_NUMBERS = 1 << 24
"""Numbers that a blocked computation holds at once in its largest temporary (64 MiB in fp32)."""


def autocorrelation(W_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """C(h) = ⟨d, R_h d⟩ / ‖d‖² = Σ_g ⟨d_g, d_{gh}⟩ / Σ_g ‖d_g‖²: [L, G, D] → [L, G] in [−1, 1].

    C(e) = 1 and C(h) = C(h⁻¹). A latent of zeros has C = 0 everywhere, also at e. C is not centred: a latent whose
    blocks share a large common part has a high C everywhere. Example C_2, D = 1: d = [3, 1] has C = [1, 6/10].

    Computed in the dtype of `W_LGD` from each latent's |G|×|G| Gram matrix, some latents at a time: only the |G| values
    of one latent with itself are wanted, so that the transform of `ops.group_correlate` would cost more. Deterministic
    on the CPU.
    """
    latents, order, width = W_LGD.shape
    C_LG = W_LGD.new_zeros(latents, order)
    step = latent_step(latents, group, width)
    for start in range(0, latents, step):
        block = W_LGD[start : start + step]
        # Scaled first: the squares of tiny weights would leave the range of fp32.
        scale = block.abs().amax(dim=(1, 2), keepdim=True)
        block = block / torch.where(scale > 0, scale, torch.ones_like(scale))
        sums = translated_sums(block @ block.mT, group)
        power = sums[:, :1]
        C_LG[start : start + step] = sums / torch.where(power > 0, power, torch.ones_like(power))
    return C_LG.clamp_(-1.0, 1.0)


def translated_sums(gram_LGG: torch.Tensor, group: Group) -> torch.Tensor:
    """Σ_g gram[l, g, gh], [L, G, G] → [L, G]: ⟨a, R_h b⟩ if gram[g, g'] = ⟨a_g, b_g'⟩."""
    index = torch.tensor(group.cayley, device=gram_LGG.device)  # [g, h] -> gh
    return gram_LGG.gather(2, index.expand(len(gram_LGG), -1, -1)).sum(1)


def latent_step(latents: int, group: Group, width: int) -> int:
    """Returns how many latents to take at once so that [step, G, max(G, D)] stays within `MAX_BLOCK_NUMBERS`."""
    return max(1, min(latents, MAX_BLOCK_NUMBERS // (group.order * max(group.order, width))))
