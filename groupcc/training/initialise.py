"""Starting values from the data: b_dec, the encoder's bias, and the scale of the activations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from groupcc.data import Orbits
from groupcc.errors import DataError
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder, residual
from groupcc.training.data import describe_examples, translate_at_random

__all__ = [
    "DataStatistics",
    "encoder_bias",
    "geometric_median",
    "initialise_biases",
    "initialise_decoder",
    "measure",
    "start_latents_",
]

SAMPLE = 4096


@dataclass(frozen=True)
class DataStatistics:
    """`centre` [G, D] for b_dec; `variance`: mean square about the mean, over examples and entries; `scale`."""

    centre: torch.Tensor
    variance: float
    scale: float


def measure(orbits: Orbits, indices: torch.Tensor, centre: str, normalise: bool, seed: int) -> DataStatistics:
    """Statistics of at most 4096 examples drawn by `seed`.

    `scale` is the power of two nearest to 1/√variance (1 without `normalise`, or for constant data): one number for
    all blocks, so that their relative norms survive. DataError for NaN or infinity, naming the examples.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = indices[torch.randperm(len(indices), generator=generator)[:SAMPLE]]
    chosen = chosen.sort().values
    acts = orbits.take(chosen)
    unusable = ~acts.flatten(1).isfinite().all(1)
    if unusable.any():
        # Else b_dec would start as NaN, and the first batch, with nothing wrong in it, be blamed.
        raise DataError(
            f"orbits have NaN or infinity in {describe_examples(orbits, chosen[unusable.cpu()])}, "
            f"{int(unusable.sum())} of the {len(chosen)} looked at. Leave these examples out, or find what made them."
        )
    mean = acts.mean(0)
    variance = float((acts - mean).square().mean(dtype=torch.float64))
    scale = 2.0 ** round(-0.5 * math.log2(variance)) if normalise and variance > 0 else 1.0
    if centre == "mean":
        return DataStatistics(mean, variance, scale)
    if centre == "zero":
        return DataStatistics(torch.zeros_like(mean), variance, scale)
    return DataStatistics(geometric_median(acts.flatten(1)).view_as(mean), variance, scale)


def geometric_median(points: torch.Tensor, iterations: int = 100, tolerance: float = 1e-6) -> torch.Tensor:
    """argmin_m Σ_i‖x_i − m‖ of points [N, D], by Weiszfeld's iteration from the mean, in fp32. [D]."""
    median = points.mean(0)
    spread = float((points - median).norm(dim=1).mean())
    if spread == 0:
        return median
    for _ in range(iterations):
        # The floor keeps a point that the median falls on from taking all the weight.
        weights = 1 / (points - median).norm(dim=1).clamp_min(1e-6 * spread)
        moved = (weights[:, None] * points).sum(0) / weights.sum()
        if float((moved - median).norm()) < tolerance * spread:
            return moved
        median = moved
    return median


@torch.no_grad()
def initialise_decoder(
    crosscoder: GroupCrosscoder,
    orbits: Orbits,
    indices: torch.Tensor,
    statistics: DataStatistics,
    augment: bool,
    seed: int,
) -> None:
    """W_dec[l] = example l about the centre, at unit norm; W_enc its transpose, as `GroupCrosscoder` starts.

    The examples are drawn by `seed`, without repeats. Latents beyond their number, and those whose example is the
    centre itself, keep their random start.
    """
    L = len(crosscoder.W_dec)
    generator = torch.Generator().manual_seed(seed)
    chosen = indices[torch.randperm(len(indices), generator=generator)[:L]]
    acts = orbits.take(chosen)
    if augment:
        table = translation_table(crosscoder.group)
        acts = translate_at_random(acts, table, seed, 0)
    directions = acts - statistics.centre
    norms = directions.flatten(1).norm(dim=1)
    usable = (norms > 1e-6 * norms.max()).nonzero().flatten()
    start_latents_(crosscoder, usable, directions[usable] / norms[usable, None, None])


@torch.no_grad()
def start_latents_(crosscoder: GroupCrosscoder, latents: torch.Tensor, directions: torch.Tensor) -> None:
    """W_dec of these latents [M] = `directions` [M, G, D]; W_enc its transpose, as `GroupCrosscoder` starts."""
    directions = directions.to(crosscoder.W_dec)
    latents = latents.to(directions.device)
    crosscoder.W_dec[latents] = directions
    blocks = crosscoder.W_enc.shape[0]
    crosscoder.W_enc[:, :, latents] = directions[:, :blocks].permute(1, 2, 0) * crosscoder.encoder_gain


@torch.no_grad()
def encoder_bias(crosscoder: GroupCrosscoder, centre: torch.Tensor) -> torch.Tensor:
    """b_enc [L] such that the encoder reads activations about `centre` ([G, D], or [1, D] where tied).

    An "identity" encoder of a tied crosscoder reads the centre in a different pose of W_enc each: right on average.
    """
    blocks = crosscoder.W_enc.shape[0]
    read = centre[:blocks]
    if crosscoder.config.tied:
        read = centre.expand(blocks, -1) / (1 if crosscoder.config.encoder == "orbit" else blocks)
    return -torch.einsum("gd,gdl->l", read, crosscoder.W_enc)


@torch.no_grad()
def initialise_biases(crosscoder: GroupCrosscoder, statistics: DataStatistics) -> None:
    """b_dec = scaled centre; b_enc such that the encoder starts out reading activations about that centre.

    Tied, b_dec is one for all blocks: the centre's mean over them. Tied in part, the residuals of both are what is then
    missing, times 1 − `base_share`: the start, too, is the tied one at infinity and the untied one at 0.
    """
    centre = (statistics.centre * statistics.scale).to(crosscoder.b_dec)
    if crosscoder.config.tied:
        centre = centre.mean(0, keepdim=True)
    crosscoder.b_dec.copy_(centre)
    crosscoder.b_enc.copy_(encoder_bias(crosscoder, centre))
    if crosscoder.config.tied == "residual":
        residual.initialise_biases_(crosscoder, statistics.centre * statistics.scale)
