"""From activations to latent acts, for each kind of sparsity; and the auxiliary loss for dead latents."""

from __future__ import annotations

import torch

from groupcc import ops
from groupcc.models.config import CrosscoderConfig
from groupcc.models.latents import SparseLatents

__all__ = ["aux_loss", "encode", "l1_penalty", "select", "share_left"]


def encode(
    x_NM: torch.Tensor,
    W_enc_ML: torch.Tensor,
    b_enc_L: torch.Tensor,
    config: CrosscoderConfig,
    threshold: torch.Tensor,
    training: bool,
) -> tuple[SparseLatents, torch.Tensor | None, torch.Tensor | None]:
    """`select` of pre = x W_enc + b_enc; "topk" forms no pre-activations."""
    if config.sparsity == "topk":
        return SparseLatents(*ops.encode_topk(x_NM, W_enc_ML, b_enc_L, config.k)), None, None
    return select(torch.addmm(b_enc_L, x_NM, W_enc_ML), config, threshold, training)


def select(
    pre_acts_NL: torch.Tensor, config: CrosscoderConfig, threshold: torch.Tensor, training: bool
) -> tuple[SparseLatents, torch.Tensor | None, torch.Tensor | None]:
    """Latents of a batch, their dense acts [N, L] where the sparsity yields those first, and the batch's threshold.

    "batchtopk" compares with the batch in training and with `threshold` after it, so that an example's latents
    don't depend on the examples beside it.
    """
    if config.sparsity == "topk":
        return SparseLatents(*ops.topk(pre_acts_NL, config.k)), None, None
    if config.sparsity == "batchtopk" and training:
        acts, indices, batch_threshold = ops.batchtopk(pre_acts_NL, config.k)
        return SparseLatents(acts, indices), None, batch_threshold
    dense = torch.relu(pre_acts_NL)
    if config.sparsity == "batchtopk":
        dense = dense * (pre_acts_NL >= threshold)
    return SparseLatents.from_dense(dense), dense, None


def l1_penalty(latents: SparseLatents, W_dec_LGD: torch.Tensor, penalty: str) -> torch.Tensor:
    """Mean over examples of Σ_l f_l·P(d_l); P as CrosscoderConfig.l1_penalty says. Scalar."""
    block_norms_LG = W_dec_LGD.norm(dim=-1)
    weight_L = block_norms_LG.sum(-1) if penalty == "block_sum" else block_norms_LG.norm(dim=-1)
    return (latents.acts * weight_L[latents.indices]).sum(1).mean()


def aux_loss(
    residual_NGD: torch.Tensor,
    power: torch.Tensor,
    x_NM: torch.Tensor,
    W_enc_ML: torch.Tensor,
    b_enc_L: torch.Tensor,
    W_dec_LGD: torch.Tensor,
    dead_L: torch.Tensor,
    aux_k: int,
) -> torch.Tensor:
    """‖e − ê‖² / ‖e‖² where ê decodes the aux_k largest dead latents and e, minus the residual, is held fixed. Scalar.

    `power` is ‖e‖². Gao et al. 2024 (arXiv:2406.04093), appendix A.2. 0 where nothing is dead or the residual is 0.
    """
    dead = dead_L.nonzero().flatten()
    k = min(aux_k, dead.numel())
    if k == 0:
        return power.new_zeros(())
    acts, chosen = ops.encode_topk(x_NM, W_enc_ML.t()[dead].t(), b_enc_L[dead], k)
    left_G, _ = ops.decode_loss(acts, dead[chosen], W_dec_LGD, None, -residual_NGD.detach())
    return share_left(left_G.sum(), power)


def share_left(left: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """left / power, the latter held fixed; 0 where it is 0. Scalars."""
    power = power.detach()
    return torch.where(power == 0, 0, left / power.clamp_min(torch.finfo(power.dtype).tiny))
