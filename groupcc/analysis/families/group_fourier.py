"""Correlation of latents over the group through the Fourier transform on it."""

from __future__ import annotations

import contextlib

import torch

from groupcc.groups import Group

__all__ = ["GroupFourier", "units"]


class GroupFourier:
    """⟨d_i, R_h d_j⟩ for many pairs and every h at once.

    z[h] = Σ_g a_g b_{gh} has ẑ(ρ) = â(ρ)ᵀ b̂(ρ), x̂(ρ) = Σ_g x_g ρ(g), and z[h] = Σ_ρ w_ρ tr(ẑ(ρ) ρ(h)ᵀ) with
    w_ρ = `Irrep.power_weight`. For each pair and channel that is Σ_ρ d_ρ³ ≈ 2|G| multiplications in place of |G|², 33
    times fewer for D_32. Relative error against the direct sum is about 2e-6 in fp32.

    `ops.group_correlate` computes the same for two batches. Here the coefficients of one dictionary are kept, as each
    block of it meets every other one.
    """

    def __init__(self, group: Group, like: torch.Tensor) -> None:
        self.dims = [irrep.dim for irrep in group.irreps()]
        # Row (ρ, p, k) gives x̂(ρ)[k, p].
        analysis = [torch.tensor(irrep.matrices).to(like).permute(2, 1, 0).flatten(0, 1) for irrep in group.irreps()]
        self._analysis = torch.cat(analysis)  # [Σ d², G]
        rows = [
            torch.tensor(irrep.matrices * irrep.power_weight(group.order)).to(like).flatten(1).T
            for irrep in group.irreps()
        ]
        self._synthesis = torch.cat(rows)  # [Σ d², G]

    def forward(self, W_LGD: torch.Tensor) -> list[torch.Tensor]:
        """Returns x̂(ρ) of each latent, for each irrep as a matrix [L·d, d·D] whose row (l, p) holds x̂(ρ)[:, p]."""
        parts = torch.matmul(self._analysis, W_LGD).split([dim * dim for dim in self.dims], dim=1)
        return [
            part.reshape(len(W_LGD) * dim, dim * W_LGD.shape[2]) for dim, part in zip(self.dims, parts, strict=True)
        ]

    def forward_units(self, W_LGD: torch.Tensor, latents: torch.Tensor, step: int) -> list[torch.Tensor]:
        """Returns `forward` of the latents at int64 [n], scaled to norm 1. `step` of them are scaled at a time."""
        n, D = len(latents), W_LGD.shape[2]
        coefficients = [W_LGD.new_empty(n * dim, dim * D) for dim in self.dims]
        for start in range(0, n, step):
            unit = units(W_LGD, latents[start : start + step])
            rows = self.rows(coefficients, start, start + len(unit))
            for into, values in zip(rows, self.forward(unit), strict=True):
                into.copy_(values)
        return coefficients

    def rows(self, coefficients: list[torch.Tensor], start: int, stop: int) -> list[torch.Tensor]:
        """Returns the coefficients of latents start … stop − 1, as views."""
        return [c[start * dim : stop * dim] for dim, c in zip(self.dims, coefficients, strict=True)]

    def select(self, coefficients: list[torch.Tensor], latents: torch.Tensor) -> list[torch.Tensor]:
        """Returns the coefficients of the latents at int64 [n]."""
        return [
            c.unflatten(0, (-1, dim))[latents.to(c.device)].flatten(0, 1)
            for dim, c in zip(self.dims, coefficients, strict=True)
        ]

    def correlate(self, a: list[torch.Tensor], b: list[torch.Tensor]) -> torch.Tensor:
        """Returns ⟨a_i, R_h b_j⟩ from the coefficients of `forward`: [La, Lb, G], with contiguous planes [La, Lb]."""
        La, Lb = len(a[0]) // self.dims[0], len(b[0]) // self.dims[0]
        z_hat = a[0].new_empty(len(self._synthesis), La, Lb)
        start = 0
        for dim, a_hat, b_hat in zip(self.dims, a, b, strict=True):
            product = a_hat.new_empty(len(a_hat), len(b_hat))
            _multiply(a_hat, b_hat.T, product)
            planes = z_hat[start : start + dim * dim].view(dim, dim, La, Lb)
            planes.copy_(product.view(La, dim, Lb, dim).permute(1, 3, 0, 2))
            start += dim * dim
        z = z_hat.new_empty(self._synthesis.shape[1], La * Lb)
        _multiply(self._synthesis.T, z_hat.flatten(1), z)
        return z.view(-1, La, Lb).permute(1, 2, 0)


def units(W_LGD: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Returns the latents at int64 [n], scaled to norm 1 over all blocks."""
    W_nGD = W_LGD[latents.to(W_LGD.device)]
    return W_nGD / W_nGD.flatten(1).norm(dim=1).view(-1, 1, 1)


def _multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
    """out = a b. On the CPU by the library that the extension finds faster, if there is the extension."""
    if out.device.type == "cpu":
        with contextlib.suppress(ImportError):
            from groupcc.ops._cpp.products import bmm

            return bmm(a[None], b[None], out[None])
    torch.mm(a, b, out=out)
    return None
