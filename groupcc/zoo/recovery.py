"""How much of a planted dictionary a decoder recovered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from groupcc.errors import argument_error
from groupcc.zoo.planted import PlantedDictionary

__all__ = ["Recovery", "match"]


@dataclass(frozen=True, eq=False)
class Recovery:
    """How a decoder compares with the planted atoms; cosines are over all blocks together.

    - `atom_cosine` [A], `atom_latent` int64 [A]: the best cosine with any latent, and which.
    - `latent_cosine` [L], `latent_atom` int64 [L]: the best cosine with any atom, and which.
    - `atom_base` int64 [A]: the planted base latent of each atom.

    Signed: latents are ≥ 0, so an atom with the sign turned is not recovered.
    """

    atom_cosine: torch.Tensor
    atom_latent: torch.Tensor
    latent_cosine: torch.Tensor
    latent_atom: torch.Tensor
    atom_base: torch.Tensor
    atom_stabilizers: npt.NDArray[np.bool_]

    def share_of_shapes(self, threshold: float = 0.95) -> float:
        """Share of the planted base latents of which every atom is matched at a cosine above `threshold`.

        Each counts once, whatever its symmetry; `share` counts a latent of stabilizer H |G|/|H| times.
        """
        missed = self.atom_base[self.atom_cosine <= threshold].unique()
        return 1.0 - len(missed) / len(self.atom_base.unique())

    def share(self, threshold: float = 0.95) -> float:
        """Share of the distinct atoms that some latent matches at a cosine above `threshold`."""
        return float((self.atom_cosine > threshold).double().mean())

    def recovered_latents(self, threshold: float = 0.95) -> list[int]:
        """The latents that match an atom at a cosine above `threshold`, copies included."""
        return (self.latent_cosine > threshold).nonzero()[:, 0].tolist()

    def stabilizer_exact(self, masks: npt.ArrayLike, threshold: float = 0.95) -> float:
        """Share of the recovered latents whose stabilizer is exactly their atom's; NaN where none is recovered.

        `masks`: the stabilizer found for each latent, bool [L, G], as `[s.mask for s in atlas.stabilizers]`.
        """
        measured = np.asarray(masks, dtype=bool)
        latents = self.recovered_latents(threshold)
        if not latents:
            return float("nan")
        truth = self.atom_stabilizers[self.latent_atom[latents].numpy()]
        return float((measured[latents] == truth).all(axis=1).mean())


def match(W_dec_LGD: torch.Tensor, truth: PlantedDictionary) -> Recovery:
    """Compares decoder blocks [L, G, D] with the planted atoms by cosine over all blocks. Zeros match nothing."""
    if W_dec_LGD.dim() != 3 or W_dec_LGD.shape[1:] != truth.atoms.shape[1:]:
        raise argument_error(
            "W_dec",
            expected=f"shape [L, {truth.atoms.shape[1]}, {truth.atoms.shape[2]}]",
            got=f"shape {tuple(W_dec_LGD.shape)}",
            remedy="Compare with a crosscoder trained on samples of this dictionary.",
        )
    learned = torch.nn.functional.normalize(W_dec_LGD.detach().float().cpu().flatten(1), dim=1)
    cosine = truth.atoms.flatten(1) @ learned.T
    atom_cosine, atom_latent = cosine.max(1)
    latent_cosine, latent_atom = cosine.max(0)
    return Recovery(atom_cosine, atom_latent, latent_cosine, latent_atom, truth.atom_base, truth.atom_stabilizers)
