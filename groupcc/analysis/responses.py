"""How a latent responds when what it responds to most is turned: its tuning curve measured on orbits."""

from __future__ import annotations

import torch

from groupcc.analysis.activity import TopExamples
from groupcc.analysis.similarity import latent_step
from groupcc.groups.tables import translation_table
from groupcc.models import GroupCrosscoder, Orbits

__all__ = ["measure_responses"]


@torch.no_grad()
def measure_responses(crosscoder: GroupCrosscoder, orbits: Orbits, examples: TopExamples) -> torch.Tensor:
    """Mean response of each latent to its top examples turned by each rotation of the group: fp32 [L, n], CPU.

        response[l, r] = mean over top examples a of ReLU(pre_l(R_r a)),
        pre_l(R_r a) = Σ_g ⟨W_enc[g, l], a_{gr}⟩ + b_l

    for encoder "orbit", and ⟨W_enc[0, l], a_r⟩ + b_l for "identity". R_r a is the orbit of the image turned by r, so no
    further run of the network is needed. The response is the one before k latents are selected: that others win is no
    property of this latent. Of a tied crosscoder the atom in the pose that it has in the example responds. NaN for a
    latent without examples.

    Top examples are those with the largest response at r = 0, so even a latent that responds alike to every angle shows
    some peak there, as large as the noise. Reads each example once a latent, in bounded blocks.
    """
    group, config = crosscoder.group, crosscoder.config
    n = group.n
    L, T = examples.indices.shape
    table = translation_table(group, crosscoder.W_enc.device)
    # cayley[g, r] of the rotations: which block of a the encoder's block g reads in R_r a.
    reads = torch.from_numpy(group.cayley[:, :n].copy()).to(table.device)
    W_LGD = crosscoder.W_enc.float().permute(2, 0, 1)
    responses = torch.full((L, n), torch.nan)
    step = max(1, latent_step(L * T, group, config.d_in) // T)
    for start in range(0, L, step):
        latents = torch.arange(start, min(start + step, L))
        which, shown = (examples.indices[latents] >= 0).nonzero(as_tuple=True)
        if len(which) == 0:
            continue
        latent = latents[which]
        acts = orbits.take(examples.indices[latent, shown]).to(W_LGD)  # [M, G, D]
        W_enc, b_enc = W_LGD[latent], crosscoder.b_enc.float()[latent]  # [M, blocks, D], [M]
        if examples.poses is not None:
            pose = examples.poses[latent, shown].to(table.device)
            row = torch.arange(len(latent), device=table.device)
            if config.encoder == "orbit":
                W_enc = W_enc.gather(1, table[pose][:, :, None].expand_as(W_enc))
            else:
                W_enc = W_enc[row, pose][:, None]
            if config.tied == "residual":
                b_enc = b_enc + crosscoder.residual_b_enc.float()[latent, pose]
                if config.encoder == "orbit":
                    W_enc = W_enc + crosscoder.residual_W_enc.float()[latent, pose]
        products = W_enc @ acts.mT  # [M, blocks, G]
        pre = products.gather(2, reads[: products.shape[1]].expand(len(latent), -1, -1)).sum(1) + b_enc[:, None]
        response = torch.relu(pre).cpu()
        count = torch.bincount(which, minlength=len(latents))
        total = torch.zeros(len(latents), n).index_add_(0, which, response)
        responses[latents[count > 0]] = total[count > 0] / count[count > 0, None]
    return responses
