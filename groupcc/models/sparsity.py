"""From pre-activations to latent acts, for each kind of sparsity; and the auxiliary loss for dead latents."""

from __future__ import annotations

import torch

from groupcc import ops
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents

__all__ = ["aux_loss", "l1_penalty", "select"]


def select(
    pre_acts_NL: torch.Tensor, config: CrosscoderConfig, threshold: torch.Tensor, training: bool
) -> tuple[SparseLatents, torch.Tensor | None, torch.Tensor | None]:
    """Latents of a batch, their dense acts [N, L] where the sparsity yields those first, and the batch's threshold.

    "batchtopk" compares with the batch in training and with `threshold` after it, so that an example's latents
    don't depend on the examples beside it.
    """
    if config.sparsity == "topk":
        return SparseLatents(*ops.topk(pre_acts_NL, config.k)), None, None
    if config.sparsity == "l1":
        dense = torch.relu(pre_acts_NL)
        return SparseLatents.from_dense(dense), dense, None
    if training:
        acts, indices, batch_threshold = ops.batchtopk(pre_acts_NL, config.k)
        return SparseLatents(acts, indices), None, batch_threshold
    dense = torch.relu(pre_acts_NL) * (pre_acts_NL >= threshold)
    return SparseLatents.from_dense(dense), dense, None


def l1_penalty(latents: SparseLatents, W_dec_LGD: torch.Tensor, penalty: str) -> torch.Tensor:
    """Mean over examples of Σ_l f_l·P(d_l); P as CrosscoderConfig.l1_penalty says. Scalar."""
    block_norms_LG = W_dec_LGD.norm(dim=-1)
    weight_L = block_norms_LG.sum(-1) if penalty == "block_sum" else block_norms_LG.norm(dim=-1)
    return (latents.acts * weight_L[latents.indices]).sum(1).mean()


def aux_loss(
    residual_NGD: torch.Tensor, pre_acts_NL: torch.Tensor, dead_L: torch.Tensor, W_dec_LGD: torch.Tensor, aux_k: int
) -> torch.Tensor:
    """‖e − ê‖² / ‖e‖² where ê decodes the aux_k largest dead latents and e, the residual, is held fixed. Scalar.

    Gao et al. 2024 (arXiv:2406.04093), appendix A.2. 0 where nothing is dead or the residual is 0.
    """
    dead = dead_L.nonzero().flatten()
    k = min(aux_k, dead.numel())
    if k == 0:
        return residual_NGD.new_zeros(())
    acts, chosen = ops.topk(pre_acts_NL[:, dead], k)
    target = residual_NGD.detach()
    estimate = ops.sparse_decode(acts, chosen, W_dec_LGD[dead].to(acts.dtype))
    power = target.square().sum()
    return (estimate - target).square().sum() / power.clamp_min(torch.finfo(power.dtype).tiny)
