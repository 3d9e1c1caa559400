"""Dead latents start anew from what the dictionary doesn't yet explain."""

from __future__ import annotations

import torch

from groupcc.models import GroupCrosscoder
from groupcc.training.data import Batches

__all__ = ["distinct", "largest_residuals", "resample_dead_"]

POOL = 4
"""Residuals of so many batches are looked at."""

CANDIDATES = 256
"""So many of them, the largest, are possible starts, and so many latents at most start anew at a time."""

# Alikeness falls with this power of the cosine, so that a sum of two missing shapes is like neither of them.
_SHARPNESS = 4


@torch.no_grad()
def largest_residuals(crosscoder: GroupCrosscoder, batches: Batches, step: int) -> torch.Tensor:
    """Returns the largest residuals a − â, at most `CANDIDATES`, of `POOL` batches that the step draws: [n, G, D]."""
    largest = torch.zeros(0, crosscoder.group.order, crosscoder.config.d_in, device=crosscoder.W_dec.device)
    for acts in batches.drawn(POOL, step):
        left = acts - crosscoder.decode(crosscoder.encode(acts)).float()
        left = torch.cat([largest, left])
        largest = left[left.flatten(1).square().sum(1).topk(min(CANDIDATES, len(left))).indices]
    return largest


@torch.no_grad()
def resample_dead_(
    crosscoder: GroupCrosscoder, optimizer: torch.optim.Optimizer, dead: torch.Tensor, residuals_NGD: torch.Tensor
) -> None:
    """Latents `dead` [M] start anew as residuals a − â at unit norm, the encoder as their transpose.

    Which of the residuals [N, G, D]: `distinct`. Latents beyond the number of residuals above 0 stay as they are. What
    tying in part adds to those that start anew is 0, and so is Adam's first moment; its second is the mean of the live
    latents', as from 0 the first steps would be 1/√(1 − β₂) times too long, which kills a latent that fires rarely.
    """
    power_N = residuals_NGD.flatten(1).square().sum(1)
    usable = power_N > 1e-12 * power_N.max()
    power_N, directions_NGD = power_N[usable], residuals_NGD[usable]
    directions_NGD = directions_NGD / power_N.sqrt()[:, None, None]
    chosen = distinct(directions_NGD, power_N, crosscoder, len(dead))
    latents = dead[: len(chosen)]
    crosscoder.restart_latents_(latents, directions_NGD[chosen])
    live = torch.ones(len(crosscoder.W_dec), dtype=torch.bool, device=dead.device).index_fill_(0, dead, False)
    for name, parameter in crosscoder.named_parameters():
        if name in crosscoder.form.without_latents:
            continue
        for slot, rows in optimizer.state[parameter].items():
            if rows.dim():
                rows[latents] = rows[live].mean(0) if slot == "exp_avg_sq" and bool(live.any()) else 0.0


def distinct(directions_NGD: torch.Tensor, power_N: torch.Tensor, crosscoder: GroupCrosscoder, count: int) -> list[int]:
    """Returns at most `count` of the unit vectors, chosen so that every vector is similar to at least one of them.

    The choice is greedy and maximises Σ_n power_n · max_{c chosen} like(n, c), with like = max(cos, 0)⁴. If latents
    have poses, the cosine is the largest that translates of the two vectors have. So the direction that is most often
    unexplained comes first, and no two latents start alike while another direction is left. Ties go to the lower index.
    """
    cosine_NN = crosscoder.form.likeness(directions_NGD, crosscoder.group)
    like_NN = cosine_NN.clamp(0, 1).pow(_SHARPNESS) * power_N[:, None]
    covered_N1 = torch.zeros_like(power_N)[:, None]
    left_N = torch.ones(len(power_N), dtype=torch.bool, device=power_N.device)
    chosen: list[int] = []
    while len(chosen) < min(count, len(power_N)):
        gain_N = (like_NN - covered_N1).clamp_min(0).sum(0).masked_fill(~left_N, -1.0)
        best = int(gain_N.argmax())
        chosen.append(best)
        left_N[best] = False
        covered_N1 = torch.maximum(covered_N1, like_NN[:, best, None])
    return chosen
