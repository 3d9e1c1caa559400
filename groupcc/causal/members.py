"""Which latents make up a family, what each writes upright, and which takes over when the family is moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder, SparseLatents

__all__ = ["Member", "Writer", "members_of"]


@dataclass(frozen=True, eq=False)
class Member:
    """The atoms of one family: `atoms` int64 [M], and `basis` [rank, D], orthonormal, of the space they write to."""

    atoms: torch.Tensor
    basis: torch.Tensor


class Writer:
    """What the atoms of a crosscoder write into block e, the layer's map of the image at hand: `upright` [A, D].

    An atom is a latent, or of a tied crosscoder base latent l in pose h, the (l·|G| + h)-th, whose block e is block h
    of W_dec[l].
    """

    def __init__(self, crosscoder: GroupCrosscoder) -> None:
        self.crosscoder, self.group = crosscoder, crosscoder.group
        self.tied = bool(crosscoder.config.tied)
        W_LGD = crosscoder.W_dec.detach().float()
        if crosscoder.config.tied == "residual":
            W_LGD = W_LGD + crosscoder.residual_W_dec.detach().float()[:, :, 0]
        self.upright = W_LGD.flatten(0, 1) if self.tied else W_LGD[:, 0]
        b_dec = crosscoder.b_dec.detach().float()[0]
        self.bias = (
            b_dec + crosscoder.residual_b_dec.detach().float()[0] if crosscoder.config.tied == "residual" else b_dec
        )

    def encode(self, acts_NGD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Acts and atoms active in each example, [N, K] each; entries of act 0 are padding."""
        latents: SparseLatents = self.crosscoder.encode(acts_NGD.to(self.upright))
        atoms = latents.indices
        if self.tied:
            assert latents.poses is not None
            atoms = atoms * self.group.order + latents.poses
        return latents.acts.float(), atoms

    def takes_over(self, member: Member, h: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each atom of the family, which of them is it in pose h; what to multiply the act by; and the cosine.

        Tied: pose g goes to hg, at cosine 1. Untied: atom l goes to argmax_j cos(d_j, R_h d_l) over the family, the
        lowest on ties, with the factor ‖d_l‖/‖d_j‖.
        """
        G = self.group.order
        if self.tied:
            moved = torch.from_numpy(self.group.cayley[h].copy()).to(member.atoms.device)
            to = member.atoms.div(G, rounding_mode="floor") * G + moved[member.atoms % G]
            return to, torch.ones_like(to, dtype=torch.float32), torch.ones_like(to, dtype=torch.float32)
        d = self.crosscoder.W_dec.detach().float()[member.atoms]
        norms = d.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        table = translation_table(self.group, d.device)
        cosine = (d[:, table[h]].flatten(1) @ d.flatten(1).T) / (norms[:, None] * norms)
        best = (cosine >= cosine.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
        return member.atoms[best], norms / norms[best], cosine.gather(1, best[:, None])[:, 0]

    def write(
        self,
        acts: torch.Tensor,
        atoms: torch.Tensor,
        chosen: torch.Tensor | None = None,
        factor: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Σ_k act_k · factor[atom_k] · upright[chosen[atom_k]], [N, D]; 0 is the factor of atoms left out."""
        if chosen is None:
            rows, weight = atoms, acts
        else:
            assert factor is not None
            rows, weight = chosen[atoms].clamp_min(0), acts * factor[atoms]
        return torch.einsum("nk,nkd->nd", weight, self.upright[rows])


def members_of(writer: Writer, latents: torch.Tensor) -> Member:
    """The family with these latents, int64 [m] (of a tied crosscoder base latents, each in every pose)."""
    atoms = latents.to(writer.upright.device)
    if writer.tied:
        atoms = (atoms[:, None] * writer.group.order + torch.arange(writer.group.order, device=atoms.device)).flatten()
    _, sizes, basis = torch.linalg.svd(writer.upright[atoms], full_matrices=False)
    return Member(atoms, basis[sizes > 1e-4 * sizes.amax().clamp_min(torch.finfo(torch.float32).tiny)])
