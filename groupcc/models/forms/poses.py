"""Pose selection: which base latents are active in an example, and in which pose each of them is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from groupcc import ops
from groupcc.groups import Group, as_planar
from groupcc.groups.translate import translation_table
from groupcc.models.dictionary import Dictionary
from groupcc.models.forms.encodings import Encoding, Reading
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.sparsity.base import Sparsity

__all__ = [
    "EachLatent",
    "PoseReading",
    "PoseSelection",
    "Strongest",
    "Suppressed",
    "autocorrelation",
    "maxima",
    "neighbours",
]


def autocorrelation(W_LGD: Tensor, group: Group) -> Tensor:
    """C[l, u] = ⟨W_l, R_u W_l⟩ / ‖W_l‖², [L, G]; 0 for a latent of zeros."""
    gram_LGG = W_LGD.flatten(2) @ W_LGD.flatten(2).transpose(1, 2)
    table = translation_table(group, W_LGD.device)
    blocks = torch.arange(group.order, device=W_LGD.device)
    power_L = gram_LGG.diagonal(dim1=1, dim2=2).sum(1)
    return gram_LGG[:, blocks, table].sum(2) / power_L.clamp_min(torch.finfo(W_LGD.dtype).tiny)[:, None]


@torch.no_grad()
def neighbours(W_dec_LGD: Tensor, group: Group, distance: float, similarity: float) -> Tensor:
    """Returns near[l, u], bool [L, G]: whether poses h and hu of base latent l exclude one another.

    They do in three cases. u is a rotation by at most `distance` degrees. The cosine of R_u d_l and d_l is at least
    `similarity`: u is in the stabilizer of d_l, or hardly told from it. u is such an element followed by such a
    rotation.

    Example: C6, `distance` 60, a latent with stabilizer {0°, 180°}. Near are 0° and ±60°, 180°, and 120° and 240° as
    180° ∓ 60°: all six, so one pose of this latent suppresses every other.
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
def maxima(cc: Dictionary, sparsity: Sparsity, z_NLG: Tensor, near_LG: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the poses l·G + h that non-maximum suppression leaves, falling, and their z: int64 and float [N, R].

    R is large enough for all that the sparsity could choose; −inf stands where an example has fewer.
    """
    N, L, G = z_NLG.shape
    count = min(cc.config.k, L * G)
    taken, values = ops.pose_maxima(z_NLG, near_LG, cc.group, count)
    while N and count < L * G:
        lowest = sparsity.lowest(values, cc)
        if lowest is None or bool(((values[:, -1] <= 0) | (values[:, -1] < lowest)).all()):
            break
        count = min(2 * count, L * G)
        taken, values = ops.pose_maxima(z_NLG, near_LG, cc.group, count)
    return taken, values


class PoseSelection:
    """In which poses a base latent may be active. Among these the sparsity then chooses.

    z [N, L, G] are the pre-activations of L base latents in every pose. The gradient of an act goes to the pose that
    was selected. A selection has no state.
    """

    def __init__(self, sparsity: Sparsity) -> None:
        self.sparsity = sparsity

    def together(self, G: int) -> int:
        """Returns how many latents of an untied dictionary in a row are the poses of one."""
        return G

    def selectable(self, n_latents: int, n_atoms: int, G: int) -> tuple[str, int]:
        """Returns what can be active at once, in words, and how many of them there are."""
        return "n_atoms", n_atoms

    def select(self, cc: Dictionary, z_NLG: Tensor, upright: Callable[[], Tensor], *, by_atom: bool = False) -> Encoded:
        """Returns latents with poses. `upright()`: the decoders [L, G, D] of the base latents in pose 0.

        `by_atom`: thresholds by latent, if the sparsity has such, are those of the atoms l·G + h, else of the base
        latents l.
        """
        raise NotImplementedError

    def encode(self, cc: Dictionary, encoding: Encoding, upright: Callable[[], Tensor]) -> Encoded:
        """`select` of a batch's encoding. ArgumentError if its activations are not finite."""
        return self.select(cc, encoding.pre_acts(), upright)

    def encode_columns(self, cc: Dictionary, x_NM: Tensor, W_enc_ML: Tensor, b_enc_L: Tensor) -> Encoded:
        """`select_columns` of x W_enc + b_enc."""
        return self.select_columns(cc, torch.addmm(b_enc_L, x_NM, W_enc_ML))

    def select_columns(self, cc: Dictionary, pre_NL: Tensor) -> Encoded:
        """Returns latents of an untied dictionary, of which l·G + h is base latent l in pose h."""
        G = cc.group.order
        z_NLG = pre_NL.unflatten(1, (-1, G))
        encoded = self.select(cc, z_NLG, lambda: cc.W_dec.unflatten(0, (-1, G))[:, 0], by_atom=True)
        acts, indices, poses = encoded.latents
        assert poses is not None
        return encoded._replace(latents=SparseLatents(acts, indices * G + poses))


class EachLatent(PoseSelection):
    """No poses: each latent of an untied dictionary is chosen for itself."""

    def together(self, G: int) -> int:
        return 1

    def selectable(self, n_latents: int, n_atoms: int, G: int) -> tuple[str, int]:
        return "n_latents", n_latents

    def encode_columns(self, cc: Dictionary, x_NM: Tensor, W_enc_ML: Tensor, b_enc_L: Tensor) -> Encoded:
        return self.sparsity.encode(x_NM, W_enc_ML, b_enc_L, cc)

    def select_columns(self, cc: Dictionary, pre_NL: Tensor) -> Encoded:
        return self.sparsity.select(pre_NL, cc)


class Strongest(PoseSelection):
    """ "max": each base latent in its strongest pose alone, of equal ones the lower element."""

    def selectable(self, n_latents: int, n_atoms: int, G: int) -> tuple[str, int]:
        bases = n_atoms // G
        return ("n_latents" if bases == n_latents else "n_latents / |G|"), bases

    def select(self, cc: Dictionary, z_NLG: Tensor, upright: Callable[[], Tensor], *, by_atom: bool = False) -> Encoded:
        return self.select_strongest(cc, *z_NLG.max(2), by_atom=by_atom)

    def encode(self, cc: Dictionary, encoding: Encoding, upright: Callable[[], Tensor]) -> Encoded:
        return self.select_strongest(cc, *encoding.strongest())

    def select_strongest(self, cc: Dictionary, values_NL: Tensor, pose_NL: Tensor, *, by_atom: bool = False) -> Encoded:
        """`select` of each base latent's largest pre-activation and the pose that has it."""
        which = None
        if by_atom:
            which = pose_NL + cc.group.order * torch.arange(pose_NL.shape[1], device=pose_NL.device)
        encoded = self.sparsity.select(values_NL, cc, which)
        latents = encoded.latents._replace(poses=pose_NL.gather(1, encoded.latents.indices))
        return encoded._replace(latents=latents, dense=None)


class Suppressed(PoseSelection):
    """ "nms": every pose that non-maximum suppression leaves, so that one base latent may be active several times.

    The strongest pose of all is taken, then the strongest that is no neighbour of one taken (`neighbours`), and so on.
    """

    def select(self, cc: Dictionary, z_NLG: Tensor, upright: Callable[[], Tensor], *, by_atom: bool = False) -> Encoded:
        config, G = cc.config, cc.group.order
        near_LG = neighbours(upright(), cc.group, config.pose_distance, config.pose_similarity)
        taken, values = maxima(cc, self.sparsity, z_NLG, near_LG)
        left = torch.where(values.isneginf(), values, z_NLG.flatten(1).gather(1, taken))
        base = taken.div(G, rounding_mode="floor")
        encoded = self.sparsity.select(left, cc, taken if by_atom else base)
        column = encoded.latents.indices
        latents = SparseLatents(encoded.latents.acts, base.gather(1, column), taken.gather(1, column) % G)
        return encoded._replace(latents=latents, dense=None)


class PoseReading(Reading):
    """A `Reading` of latents with poses, by an encoding of the batch. `upright` as `PoseSelection.select` has it."""

    def __init__(
        self, cc: Dictionary, selection: PoseSelection, encoding: Encoding, upright: Callable[[], Tensor]
    ) -> None:
        self.cc, self.selection, self.encoding, self.upright = cc, selection, encoding, upright

    def encode(self) -> Encoded:
        encoded = self.selection.encode(self.cc, self.encoding, self.upright)
        return encoded._replace(latents=self.encoding.with_gradients(encoded.latents))

    def strongest(self, latents_M: Tensor, k: int) -> SparseLatents:
        values, pose = self.encoding.strongest(latents_M)
        acts, chosen = ops.topk(values, k)
        return self.encoding.with_gradients(SparseLatents(acts, latents_M[chosen], pose.gather(1, chosen)))
