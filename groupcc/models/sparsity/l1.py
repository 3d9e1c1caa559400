"""l1: every latent above 0, held down by a penalty on acts times decoder norms (Lindsey et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from groupcc.errors import argument_error
from groupcc.models.config import CrosscoderConfig
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.sparsity.base import ForwardPass, Sparsity

__all__ = ["L1"]


class L1(Sparsity):
    """f = ReLU(pre), and λ·Σ_l f_l·P(d_l) in the loss, over the |G|·D entries of an example as its error is.

    P(d) = Σ_g‖d_g‖ (`l1_penalty="block_sum"`) or ‖d‖ over all blocks ("concat"); λ is `l1_coefficient`.
    """

    uses_k = False
    free_decoders = True
    gradient_is_sparse = False

    def check(self, config: CrosscoderConfig) -> None:
        if not 0 < config.l1_coefficient < float("inf"):
            raise argument_error(
                "l1_coefficient",
                expected="a positive number with sparsity='l1'",
                got=config.l1_coefficient,
                remedy="Start from 1e-2 and raise it until L0 is what you want.",
            )

    def select(self, pre_NR: Tensor, cc: Dictionary, which_NR: Tensor | None = None) -> Encoded:
        dense = torch.relu(pre_NR)
        return Encoded(SparseLatents.from_dense(dense), dense=dense)

    def lowest(self, values_NR: Tensor, cc: Dictionary) -> Tensor | None:
        return values_NR.new_zeros(())

    def losses(self, seen: ForwardPass, cc: Dictionary) -> dict[str, tuple[Tensor, float]]:
        penalty = _penalty(seen.encoded.latents.acts, seen.rows(), seen.W_dec, cc.config.l1_penalty)
        return {"l1": (penalty, cc.config.l1_coefficient / (cc.group.order * cc.config.d_in))}


def _penalty(acts_NK: Tensor, rows_NK: Tensor, W_dec_RGD: Tensor, penalty: str) -> Tensor:
    """Mean over examples of Σ_l f_l·P(d_l). Scalar."""
    block_norms_RG = W_dec_RGD.norm(dim=-1)
    weight_R = block_norms_RG.sum(-1) if penalty == "block_sum" else block_norms_RG.norm(dim=-1)
    return (acts_NK * weight_R[rows_NK]).sum(1).mean()
