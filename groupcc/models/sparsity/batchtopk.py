"""batchtopk: k latents an example on average over the batch (Bussmann et al. 2024, arXiv:2412.06410)."""

from __future__ import annotations

import torch
from torch import Tensor

from groupcc import ops
from groupcc.models.dictionary import Dictionary
from groupcc.models.latents import Encoded, SparseLatents
from groupcc.models.sparsity.base import Sparsity

__all__ = ["BatchTopK"]

KEPT, NEW = 0.99, 0.01
"""Weights of the running threshold and of a batch's in the threshold after that batch."""


class BatchTopK(Sparsity):
    """In training the N·k largest pre-activations of the batch; after it those of at least `threshold`.

    `threshold` [] is the running mean of the lowest pre-activation that a batch chose, so that an example's latents do
    not depend on the examples beside it.
    """

    def select(self, pre_NR: Tensor, cc: Dictionary, which_NR: Tensor | None = None) -> Encoded:
        if cc.training:
            acts, indices, threshold = ops.batchtopk(pre_NR, cc.config.k)
            return Encoded(SparseLatents(acts, indices), threshold=threshold)
        dense = torch.relu(pre_NR) * (pre_NR >= cc.threshold)
        return Encoded(SparseLatents.from_dense(dense), dense=dense)

    def lowest(self, values_NR: Tensor, cc: Dictionary) -> Tensor | None:
        if cc.training:
            return values_NR.flatten().topk(len(values_NR) * cc.config.k).values[-1]
        return cc.threshold.to(values_NR)

    @torch.no_grad()
    def after_batch_(self, encoded: Encoded, cc: Dictionary) -> None:
        threshold = encoded.threshold
        if threshold is None or not len(encoded.latents.acts):
            return
        # Starts at the first batch's value rather than creeping up from 0.
        started = cc.threshold > 0
        cc.threshold.copy_(torch.where(started, KEPT * cc.threshold + NEW * threshold, threshold))
