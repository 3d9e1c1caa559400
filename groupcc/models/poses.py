"""Pose selection: which base latents are active in an example, and in which pose each of them is."""

from __future__ import annotations

import torch

from groupcc import ops
from groupcc.groups import Group, as_planar
from groupcc.groups.translate import translation_table
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents
from groupcc.models.sparsity import select

__all__ = ["autocorrelation", "maxima", "neighbours", "select_poses", "select_strongest"]


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
    plane = as_planar(group, 'pose="nms"')
    turned = torch.from_numpy(plane.angles.copy())
    turned = torch.rad2deg(torch.minimum(turned, 2 * torch.pi - turned))
    close = ((turned <= distance + 1e-6) & ~torch.from_numpy(plane.reflections.copy())).to(W_dec_LGD.device)
    alike = autocorrelation(W_dec_LGD, group) >= similarity
    cayley = torch.from_numpy(group.cayley.copy()).to(W_dec_LGD.device)
    # Beside an equal pose lie poses as near to this one as those beside it.
    beside = torch.zeros_like(alike)
    for u in close.nonzero().flatten().tolist():
        beside[:, cayley[:, u]] |= alike
    return beside | alike | close


@torch.no_grad()
def maxima(
    z_NLG: torch.Tensor,
    near_LG: torch.Tensor,
    group: Group,
    config: CrosscoderConfig,
    threshold: torch.Tensor,
    training: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The poses l·G + h that are left by non-maximum suppression, falling, as many as `select` could choose: int64 and
    their z, [N, R]; −inf where an example has fewer."""
    N, L, G = z_NLG.shape
    count = min(config.k, L * G)
    taken, values = ops.pose_maxima(z_NLG, near_LG, group, count)
    while config.sparsity != "topk" and N and count < L * G:
        lowest = values.new_zeros(())
        if config.sparsity == "batchtopk":
            lowest = values.flatten().topk(N * config.k).values[-1] if training else threshold.to(values)
        last = values[:, -1]
        if bool(((last <= 0) | (last < lowest)).all()):
            break
        count = min(2 * count, L * G)
        taken, values = ops.pose_maxima(z_NLG, near_LG, group, count)
    return taken, values


def select_strongest(
    strongest_NL: torch.Tensor, pose_NL: torch.Tensor, config: CrosscoderConfig, threshold: torch.Tensor, training: bool
) -> tuple[SparseLatents, None, torch.Tensor | None]:
    """`select_poses` with "max" of each base latent's largest pre-activation and the pose that has it."""
    latents, _, batch_threshold = select(strongest_NL, config, threshold, training)
    return latents._replace(poses=pose_NL.gather(1, latents.indices)), None, batch_threshold


def select_poses(
    z_NLG: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    group: Group,
    config: CrosscoderConfig,
    threshold: torch.Tensor,
    training: bool,
) -> tuple[SparseLatents, None, torch.Tensor | None]:
    """Latents with poses from pre-activations z of every base latent in every pose, None, and the batch's threshold.

    "max" takes each base latent in its strongest pose alone; "nms" in every pose that non-maximum suppression leaves
    (the strongest, then the strongest that is no neighbour of one taken, …), so that one base latent may be active
    several times. Then `select` chooses as config.sparsity says. The gradient of an act goes to the pose selected.
    """
    if config.pose == "max":
        return select_strongest(*z_NLG.max(2), config, threshold, training)
    near_LG = neighbours(W_dec_LGD, group, config.pose_distance, config.pose_similarity)
    taken, values = maxima(z_NLG, near_LG, group, config, threshold, training)
    found = torch.where(values.isneginf(), values, z_NLG.flatten(1).gather(1, taken))
    latents, _, batch_threshold = select(found, config, threshold, training)
    atoms, G = taken.gather(1, latents.indices), group.order
    return SparseLatents(latents.acts, atoms.div(G, rounding_mode="floor"), atoms % G), None, batch_threshold
