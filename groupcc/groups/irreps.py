"""Real orthogonal irreducible representations of a finite group."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.groups.arrays import FloatArray

__all__ = ["Irrep"]


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real orthogonal irreducible representation ρ.

    `matrices[g]` = ρ(g), float64 [G, d, d], with ρ(g)ρ(h) = ρ(gh). `endomorphism_dim` m counts the independent real
    matrices that commute with every ρ(g): 1 if ρ stays irreducible over the complex numbers, 2 if it splits in two
    conjugate ones (the planar rotations of C_n), 4 if it splits in two equal ones (the quaternion group). Over a
    group, Σ_ρ d²/m = |G|, and characters satisfy ⟨χ_ρ, χ_σ⟩ = m·δ_ρσ.
    """

    name: str
    dim: int
    endomorphism_dim: int
    matrices: FloatArray

    @property
    def character(self) -> FloatArray:
        """χ(g) = tr ρ(g), float64 [G]."""
        return np.trace(self.matrices, axis1=1, axis2=2)

    def power_weight(self, order: int) -> float:
        """Returns w with Σ_ρ w·‖x̂(ρ)‖² = Σ_g x_g² where x̂(ρ) = Σ_g x_g ρ(g) (Parseval): d / (m·|G|)."""
        return self.dim / (self.endomorphism_dim * order)
