"""Real orthogonal irreducible representations of C_n and D_n."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from groupcc.groups.algebra import FloatArray, Group

__all__ = ["Irrep", "real_irreps"]


@dataclass(frozen=True, eq=False)
class Irrep:
    """A real orthogonal irreducible representation ρ.

    `matrices[g]` = ρ(g), float64 [G, d, d], with ρ(g)ρ(h) = ρ(gh). `frequency` k: a rotation by θ turns by kθ.
    `endomorphism_dim` m is 1 (stays irreducible over the complex numbers) or 2 (splits in two conjugate ones: the
    planar rotations of C_n). Over a group, Σ_ρ d²/m = |G|, and characters satisfy ⟨χ_ρ, χ_σ⟩ = m·δ_ρσ.
    """

    name: str
    dim: int
    frequency: int
    endomorphism_dim: int
    matrices: FloatArray

    @property
    def character(self) -> FloatArray:
        """χ(g) = tr ρ(g), float64 [G]."""
        return np.trace(self.matrices, axis1=1, axis2=2)

    def power_weight(self, order: int) -> float:
        """w with Σ_ρ w·‖x̂(ρ)‖² = Σ_g x_g² where x̂(ρ) = Σ_g x_g ρ(g) (Parseval): d / (m·|G|)."""
        return self.dim / (self.endomorphism_dim * order)


def real_irreps(group: Group) -> tuple[Irrep, ...]:
    """Every real irrep of `group`: by frequency, within a frequency the mirror-even one first.

    Names: `A<k>` is one-dimensional at frequency k (0 or n/2), primed where the mirror x → −x is −1; `E<k>` is the
    two-dimensional one at frequency k.
    """
    n = group.n
    steps = np.arange(group.order) % n
    mirrored = group.reflections
    found: list[Irrep] = []
    for k in range(n // 2 + 1):
        if 2 * k % n == 0:
            rotation_sign = np.where((steps % 2 == 1) & (k != 0), -1.0, 1.0)
            found.append(_one_dimensional(f"A{k}", k, rotation_sign))
            if group.kind == "dihedral":
                found.append(_one_dimensional(f"A{k}'", k, rotation_sign * np.where(mirrored, -1.0, 1.0)))
            continue
        phase = 2 * np.pi * (k * steps % n) / n
        cos, sin = np.cos(phase), np.sin(phase)
        mirror = np.where(mirrored, -1.0, 1.0)
        matrices = np.stack([np.stack([cos, -sin * mirror], -1), np.stack([sin, cos * mirror], -1)], -2)
        found.append(Irrep(f"E{k}", 2, k, 2 if group.kind == "cyclic" else 1, matrices))
    return tuple(found)


def _one_dimensional(name: str, frequency: int, signs: FloatArray) -> Irrep:
    return Irrep(name, 1, frequency, 1, signs.reshape(-1, 1, 1))
