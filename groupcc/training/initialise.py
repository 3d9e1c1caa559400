"""What training takes from the data before it starts: centre and scale of the activations, and first decoders."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from groupcc.data import Orbits
from groupcc.errors import DataError
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder
from groupcc.training.config import TrainConfig
from groupcc.training.data import describe_examples, translate_at_random

__all__ = [
    "DataStatistics",
    "geometric_median",
    "initialise_decoder",
    "measure",
]

SAMPLE = 4096


@dataclass(frozen=True)
class DataStatistics:
    """`centre` [G, D]; `variance`: mean square about the mean, over examples and entries; `scale`."""

    centre: torch.Tensor
    variance: float
    scale: float


def measure(orbits: Orbits, indices: torch.Tensor, config: TrainConfig) -> DataStatistics:
    """Statistics of at most 4096 examples drawn by the settings' seed, centre by `init_b_dec`.

    Translated examples have one centre for all blocks: with `augment` it is the mean of the blocks' centres.

    `scale` is the power of two nearest to 1/√variance (1 without `normalise`, or for constant data): one number for
    all blocks, so that their relative norms survive. DataError for NaN or infinity, naming the examples.
    """
    generator = torch.Generator().manual_seed(config.seed)
    chosen = indices[torch.randperm(len(indices), generator=generator)[:SAMPLE]]
    chosen = chosen.sort().values
    acts = orbits.take(chosen)
    unusable = ~acts.flatten(1).isfinite().all(1)
    if unusable.any():
        # Else the centre would be NaN, and the first batch, with nothing wrong in it, be blamed.
        raise DataError(
            f"orbits have NaN or infinity in {describe_examples(orbits, chosen[unusable.cpu()])}, "
            f"{int(unusable.sum())} of the {len(chosen)} looked at. Leave these examples out, or find what made them."
        )
    mean = _one_for_all_blocks(acts.mean(0, dtype=torch.float64).float(), config)
    variance = float((acts - mean).square().mean(dtype=torch.float64))
    scale = 2.0 ** round(-0.5 * math.log2(variance)) if config.normalise and variance > 0 else 1.0
    if config.init_b_dec == "zero":
        return DataStatistics(torch.zeros_like(mean), variance, scale)
    if config.init_b_dec == "mean":
        return DataStatistics(mean, variance, scale)
    # About the mean: far from 0 its distances would be a matter of rounding.
    median = mean + geometric_median((acts - mean).flatten(1)).view_as(mean)
    return DataStatistics(_one_for_all_blocks(median, config), variance, scale)


def _one_for_all_blocks(centre_GD: torch.Tensor, config: TrainConfig) -> torch.Tensor:
    return centre_GD.mean(0, keepdim=True).expand_as(centre_GD) if config.augment else centre_GD


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
    crosscoder: GroupCrosscoder, orbits: Orbits, indices: torch.Tensor, centre_GD: torch.Tensor, config: TrainConfig
) -> None:
    """W_dec[l] = example l about the centre, at unit norm; W_enc its transpose, as `GroupCrosscoder` starts.

    The settings' seed draws the examples, without repeats. Latents beyond their number, and those whose example is the
    centre itself, keep their random start.
    """
    L = len(crosscoder.W_dec)
    generator = torch.Generator().manual_seed(config.seed)
    chosen = indices[torch.randperm(len(indices), generator=generator)[:L]]
    directions = orbits.take(chosen) - centre_GD
    if config.augment:
        directions = translate_at_random(directions, translation_table(crosscoder.group), config.seed, 0)
    norms = directions.flatten(1).norm(dim=1)
    usable = (norms > 1e-6 * norms.max()).nonzero().flatten()
    crosscoder.start_latents_(usable, directions[usable] / norms[usable, None, None])
