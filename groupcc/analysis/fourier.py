"""Correlation of latents over the group through the Fourier transform on it."""

from __future__ import annotations

import torch

from groupcc.groups import Group

__all__ = ["GroupFourier"]


class GroupFourier:
    """⟨d_i, R_h d_j⟩ for many pairs and every h at once.

    z[h] = Σ_g a_g b_{gh} has ẑ(ρ) = â(ρ)ᵀ b̂(ρ), x̂(ρ) = Σ_g x_g ρ(g), and z[h] = Σ_ρ w_ρ tr(ẑ(ρ) ρ(h)ᵀ) with
    w_ρ = `Irrep.power_weight`. For each pair and channel that is Σ_ρ d_ρ³ ≈ 2|G| multiplications in place of |G|²
    (design: 33 times fewer for D_32). Relative error against the direct sum is about 2e-6 in fp32.
    """

    def __init__(self, group: Group, like: torch.Tensor) -> None:
        self.dims = [irrep.dim for irrep in group.irreps()]
        self._matrices = [torch.tensor(irrep.matrices).to(like) for irrep in group.irreps()]
        rows = [
            torch.tensor(irrep.matrices * irrep.power_weight(group.order)).to(like).flatten(1).T
            for irrep in group.irreps()
        ]
        self._synthesis = torch.cat(rows)  # [Σ d², G]

    def forward(self, W_LGD: torch.Tensor) -> list[torch.Tensor]:
        """x̂(ρ) of each latent, for each irrep as a matrix [L·d, d·D] whose row (l, p) holds x̂(ρ)[:, p]."""
        coefficients = []
        for dim, matrices in zip(self.dims, self._matrices, strict=True):
            x_hat = torch.einsum("lgc,gkp->lpkc", W_LGD, matrices)
            coefficients.append(x_hat.reshape(len(W_LGD) * dim, dim * W_LGD.shape[2]))
        return coefficients

    def empty(self, latents: int, like_LGD: torch.Tensor) -> list[torch.Tensor]:
        """Room for what `forward` gives of that many latents."""
        D = like_LGD.shape[2]
        return [like_LGD.new_empty(latents * dim, dim * D) for dim in self.dims]

    def rows(self, coefficients: list[torch.Tensor], start: int, stop: int) -> list[torch.Tensor]:
        """The coefficients of latents start … stop − 1, as views."""
        return [c[start * dim : stop * dim] for dim, c in zip(self.dims, coefficients, strict=True)]

    def select(self, coefficients: list[torch.Tensor], latents: torch.Tensor) -> list[torch.Tensor]:
        """The coefficients of the latents at int64 [n]."""
        return [
            c.unflatten(0, (-1, dim))[latents.to(c.device)].flatten(0, 1)
            for dim, c in zip(self.dims, coefficients, strict=True)
        ]

    def correlate(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        """⟨a_i, R_h b_j⟩ from the coefficients of `forward`: [La, Lb, G]."""
        products = []
        for dim, a_hat, b_hat in zip(self.dims, a, b, strict=True):
            z_hat = (a_hat @ b_hat.T).view(len(a_hat) // dim, dim, len(b_hat) // dim, dim)
            products.append(z_hat.permute(0, 2, 1, 3).flatten(2))
        return torch.cat(products, dim=2) @ self._synthesis
