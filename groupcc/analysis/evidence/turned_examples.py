"""How a latent responds if its strongest examples are turned: its tuning curve measured on orbits."""

from __future__ import annotations

import torch

from groupcc.analysis.evidence.activity import TopExamples
from groupcc.data import Orbits
from groupcc.groups import as_planar
from groupcc.groups.autocorrelation import latent_step
from groupcc.models import GroupCrosscoder
from groupcc.models.moved_pre_acts import moved_pre_acts

__all__ = ["measure_responses"]


@torch.no_grad()
def measure_responses(crosscoder: GroupCrosscoder, orbits: Orbits, examples: TopExamples) -> torch.Tensor:
    """Mean response of each latent to its top examples turned by each rotation of the group: fp32 [L, n], CPU.

        response[l, r] = mean over top examples a of ReLU(pre_l(R_r a)),
        pre_l(R_r a) = Σ_g ⟨W_enc[l, g], a_{gr}⟩ + b_l

    for encoder "orbit", and ⟨W_enc[l, 0], a_r⟩ + b_l for "identity". R_r a is the orbit of the image turned by r, so
    the network need not run again. The response is taken before k latents are selected: that others win is no property
    of this latent. If latents have poses, the atom in the pose of the example responds. NaN for a latent without
    examples.

    The top examples are those with the largest response at r = 0. So even a latent that responds alike to every angle
    shows some peak there, as large as the noise. Reads each example once a latent, in bounded blocks.
    """
    group, config = as_planar(crosscoder.group, "analysis"), crosscoder.config
    n, device = group.n, crosscoder.W_enc.device
    rotations = torch.arange(n, device=device)
    L, T = examples.indices.shape
    responses = torch.full((L, n), torch.nan)
    step = max(1, latent_step(L * T, group, config.d_in) // T)
    for start in range(0, L, step):
        latents = torch.arange(start, min(start + step, L))
        which, shown = (examples.indices[latents] >= 0).nonzero(as_tuple=True)
        if len(which) == 0:
            continue
        latent = latents[which]
        acts = orbits.take(examples.indices[latent, shown]).to(device)  # [M, G, D]
        poses = None if examples.poses is None else examples.poses[latent, shown].to(device)
        pre = moved_pre_acts(crosscoder, acts, latent.to(device), poses, elements=rotations)
        count = torch.bincount(which, minlength=len(latents))
        total = torch.zeros(len(latents), n).index_add_(0, which, pre.relu().cpu())
        responses[latents[count > 0]] = total[count > 0] / count[count > 0, None]
    return responses
