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
    """What the atoms of a crosscoder write into block e, the layer's map of the image at hand.

    `upright` [A, D] has the atoms in their form's order: latent l in pose h is atom l·H + h. `bias` [D] is b_dec's
    block e.
    """

    def __init__(self, crosscoder: GroupCrosscoder) -> None:
        self.crosscoder, self.group = crosscoder, crosscoder.group
        self.upright, self.bias = crosscoder.form.upright(crosscoder)

    def encode(self, acts_NGD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns acts and the atoms that are active in each example, [N, K] each. Entries of act 0 are padding."""
        latents: SparseLatents = self.crosscoder.encode(acts_NGD.to(self.upright))
        return latents.acts.float(), self.crosscoder.form.atom_numbers(latents, self.group)

    def takes_over(self, member: Member, h: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Returns, for each atom of the family, the atom that is it in pose h, the factor on its act, and the cosine.

        If the form gives the poses, pose g goes to hg, with factor and cosine 1. Otherwise atom l goes to
        argmax_j cos(d_j, R_h d_l) over the family, the lowest of equals, with the factor ‖d_l‖/‖d_j‖.
        """
        moved = self.crosscoder.form.moved_atoms(member.atoms, h, self.group)
        if moved is not None:
            one = torch.ones_like(moved, dtype=torch.float32)
            return moved, one, one
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
    """Returns the family with these latents, int64 [m]. If latents have poses, the family has each in every pose."""
    atoms = writer.crosscoder.form.atoms_of(latents.to(writer.upright.device), writer.group)
    _, sizes, basis = torch.linalg.svd(writer.upright[atoms], full_matrices=False)
    return Member(atoms, basis[sizes > 1e-4 * sizes.amax().clamp_min(torch.finfo(torch.float32).tiny)])
