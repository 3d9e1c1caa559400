"""Pose selection: which base latents are active in an example, and in which pose each of them is."""

from __future__ import annotations

import torch

from groupcc.groups import Group
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents
from groupcc.models.sparsity import select

__all__ = ["autocorrelation", "neighbours", "select_poses", "translation_table"]


def translation_table(group: Group, device: torch.device) -> torch.Tensor:
    """Row h holds where R_h takes each block from: (R_h d)_g = d[table[h, g]], table[h, g] = gh. int64 [G, G]."""
    return torch.from_numpy(group.right_translation.copy()).to(device)


def autocorrelation(W_LGD: torch.Tensor, group: Group) -> torch.Tensor:
    """C[l, u] = ⟨W_l, R_u W_l⟩ / ‖W_l‖², [L, G]; 0 for a latent of zeros."""
    gram_LGG = W_LGD.flatten(2) @ W_LGD.flatten(2).transpose(1, 2)
    table = translation_table(group, W_LGD.device)
    blocks = torch.arange(group.order, device=W_LGD.device)
    power_L = gram_LGG.diagonal(dim1=1, dim2=2).sum(1)
    return gram_LGG[:, blocks, table].sum(2) / power_L.clamp_min(torch.finfo(W_LGD.dtype).tiny)[:, None]


@torch.no_grad()
def neighbours(W_dec_LGD: torch.Tensor, group: Group, distance: float, similarity: float) -> torch.Tensor:
    """near[l, u]: whether poses h and hu of base latent l exclude one another. bool [L, G].

    They do where u is a rotation by at most `distance` degrees, where R_u d_l is within cosine `similarity` of d_l
    (its stabilizer, and poses hardly told apart), and where u leads from one of the second kind by one of the first.
    """
    turned = torch.from_numpy(group.angles.copy())
    turned = torch.rad2deg(torch.minimum(turned, 2 * torch.pi - turned))
    close = ((turned <= distance + 1e-6) & ~torch.from_numpy(group.reflections.copy())).to(W_dec_LGD.device)
    alike = autocorrelation(W_dec_LGD, group) >= similarity
    cayley = torch.from_numpy(group.cayley.copy()).to(W_dec_LGD.device)
    # Beside an equal pose lie poses as near to this one as those beside it.
    beside = torch.zeros_like(alike)
    for u in close.nonzero().flatten().tolist():
        beside[:, cayley[:, u]] |= alike
    return beside | alike | close


def local_maxima(z_NLG: torch.Tensor, near_LG: torch.Tensor, group: Group) -> torch.Tensor:
    """Which poses are at least as strong as all their neighbours, a tie going to the lower index. bool [N, L, G]."""
    cayley = torch.from_numpy(group.cayley.copy()).to(z_NLG.device)
    index = torch.arange(group.order, device=z_NLG.device)
    kept = torch.ones_like(z_NLG, dtype=torch.bool)
    for u in near_LG.any(0).nonzero().flatten().tolist():
        if u == group.identity:
            continue
        other = cayley[:, u]  # h ↦ hu
        there = z_NLG[:, :, other]
        beaten = (there > z_NLG) | ((there == z_NLG) & (other < index))
        kept &= ~(beaten & near_LG[:, u, None])
    return kept


def select_poses(
    z_NLG: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    group: Group,
    config: CrosscoderConfig,
    threshold: torch.Tensor,
    training: bool,
) -> tuple[SparseLatents, None, torch.Tensor | None]:
    """Latents with poses from pre-activations z of every base latent in every pose, None, and the batch's threshold.

    "max" takes each base latent in its strongest pose alone; "nms" every local maximum over the poses, so that one
    base latent may be active several times. Then `select` chooses as config.sparsity says. The gradient of an act goes
    to the pose that was selected.
    """
    N, L, G = z_NLG.shape
    if config.pose == "max":
        strongest_NL, pose_NL = z_NLG.max(2)
        latents, _, batch_threshold = select(strongest_NL, config, threshold, training)
        return latents._replace(poses=pose_NL.gather(1, latents.indices)), None, batch_threshold
    with torch.no_grad():
        near_LG = neighbours(W_dec_LGD, group, config.pose_distance, config.pose_similarity)
        kept = local_maxima(z_NLG, near_LG, group)
    found = torch.where(kept, z_NLG, float("-inf")).reshape(N, L * G)
    latents, _, batch_threshold = select(found, config, threshold, training)
    poses = latents.indices % G
    return SparseLatents(latents.acts, latents.indices.div(G, rounding_mode="floor"), poses), None, batch_threshold
