"""topk: the k largest pre-activations of each example (Gao et al. 2024, arXiv:2406.04093)."""

from __future__ import annotations

from torch import Tensor

from groupcc import ops
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.sparsity.base import Sparsity

__all__ = ["TopK"]


class TopK(Sparsity):
    """f = ReLU of the k largest pre-activations of each example; ties go to the lower latent."""

    def encode(self, x_NM: Tensor, W_enc_ML: Tensor, b_enc_L: Tensor, cc: Dictionary) -> Encoded:
        return Encoded(SparseLatents(*ops.encode_topk(x_NM, W_enc_ML, b_enc_L, cc.config.k)))

    def select(self, pre_NR: Tensor, cc: Dictionary, which_NR: Tensor | None = None) -> Encoded:
        return Encoded(SparseLatents(*ops.topk(pre_NR, cc.config.k)))
