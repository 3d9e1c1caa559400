"""Pose selection: which base latents are active in an example, and in which pose each of them is."""

from __future__ import annotations

import torch

from groupcc import ops
from groupcc.groups import Group
from groupcc.groups.tables import translation_table
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.sparsity import sparsity_of

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


@torch.no_grad()
def maxima(cc: Dictionary, z_NLG: torch.Tensor, near_LG: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the poses l·G + h that non-maximum suppression leaves, falling, and their z: int64 and float [N, R].

    R is large enough for all that the sparsity could choose; −inf stands where an example has fewer.
    """
    N, L, G = z_NLG.shape
    count = min(cc.config.k, L * G)
    taken, values = ops.pose_maxima(z_NLG, near_LG, cc.group, count)
    while N and count < L * G:
        lowest = sparsity_of(cc.config.sparsity).lowest(values, cc)
        if lowest is None or bool(((values[:, -1] <= 0) | (values[:, -1] < lowest)).all()):
            break
        count = min(2 * count, L * G)
        taken, values = ops.pose_maxima(z_NLG, near_LG, cc.group, count)
    return taken, values


def select_strongest(cc: Dictionary, strongest_NL: torch.Tensor, pose_NL: torch.Tensor) -> Encoded:
    """`select_poses` with "max" of each base latent's largest pre-activation and the pose that has it."""
    encoded = sparsity_of(cc.config.sparsity).select(strongest_NL, cc)
    latents = encoded.latents._replace(poses=pose_NL.gather(1, encoded.latents.indices))
    return encoded._replace(latents=latents, dense=None)


def select_poses(cc: Dictionary, z_NLG: torch.Tensor, W_dec_LGD: torch.Tensor) -> Encoded:
    """Latents with poses from pre-activations z of every base latent in every pose.

    "max" takes each base latent in its strongest pose alone; "nms" in every pose that non-maximum suppression leaves
    (the strongest, then the strongest that is no neighbour of one taken, …), so that one base latent may be active
    several times. Then the sparsity chooses. The gradient of an act goes to the pose selected.
    """
    config, G = cc.config, cc.group.order
    if config.pose == "max":
        return select_strongest(cc, *z_NLG.max(2))
    near_LG = neighbours(W_dec_LGD, cc.group, config.pose_distance, config.pose_similarity)
    taken, values = maxima(cc, z_NLG, near_LG)
    left = torch.where(values.isneginf(), values, z_NLG.flatten(1).gather(1, taken))
    encoded = sparsity_of(config.sparsity).select(left, cc)
    atoms = taken.gather(1, encoded.latents.indices)
    latents = SparseLatents(encoded.latents.acts, atoms.div(G, rounding_mode="floor"), atoms % G)
    return encoded._replace(latents=latents, dense=None)
