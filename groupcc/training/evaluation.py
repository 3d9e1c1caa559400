"""evaluate: FVU per block and pooled, L0 and dead latents of a crosscoder on orbits."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.data import as_orbits
from groupcc.models import GroupCrosscoder
from groupcc.models.metrics import MetricSums, batch_starts

__all__ = ["evaluate"]


@torch.no_grad()
def evaluate(
    crosscoder: GroupCrosscoder,
    orbits: object,
    *,
    indices: torch.Tensor | None = None,
    batch_size: int = 1024,
    progress: bool = False,
) -> dict[str, Any]:
    """Metrics over the examples at `indices` (all by default), in inference mode.

    - `fvu`: Σ‖a − â‖² / Σ‖a − ā‖² over all blocks, ā the mean of the evaluated examples; `fvu_per_block` [G];
      `explained_variance` = 1 − fvu. None where the examples have no variance.
    - `l0`: mean number of active latents; `dead_fraction`: share of latents that no example fired;
      `n_examples`.

    Sums in fp64, deterministic on the CPU. The crosscoder's mode is restored.
    """
    source = as_orbits(orbits, crosscoder.group.order, crosscoder.config.d_in)
    chosen = torch.arange(len(source)) if indices is None else torch.as_tensor(indices)
    sums = MetricSums(source, chosen, crosscoder.config.n_latents)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in batch_starts(len(chosen), batch_size, "evaluate", progress):
            acts = source.take(chosen[start : start + batch_size])
            out = crosscoder(acts.to(crosscoder.W_dec.device))
            sums.add(acts, out.reconstruction, out.latents)
    finally:
        crosscoder.train(was_training)
    return sums.metrics()
