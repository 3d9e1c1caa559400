"""evaluate: FVU per block and pooled, L0 and dead latents of a crosscoder on orbits."""

from __future__ import annotations

from typing import Any

import torch

from groupcc.models import GroupCrosscoder
from groupcc.training.data import as_orbits

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
    device = crosscoder.W_dec.device
    G = crosscoder.group.order
    residual_G = torch.zeros(G, dtype=torch.float64)
    total_G = torch.zeros(G, dtype=torch.float64)
    sum_GD = torch.zeros(G, crosscoder.config.d_in, dtype=torch.float64)
    active = 0
    fired = torch.zeros(crosscoder.config.n_latents, dtype=torch.bool)
    # Squares are summed about a value near the mean: about zero, fp64 or not, a large mean would drown them.
    origin = source.take(chosen[:256]).mean(0)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in _steps(len(chosen), batch_size, progress):
            acts = source.take(chosen[start : start + batch_size])
            out = crosscoder(acts.to(device))
            residual = acts - out.reconstruction.float().cpu()
            residual_G += residual.square().sum((0, 2), dtype=torch.float64)
            centred = (acts - origin).double()
            total_G += centred.square().sum((0, 2))
            sum_GD += centred.sum(0)
            positive = out.latents.acts > 0
            active += int(positive.sum())
            fired[out.latents.indices[positive].cpu()] = True
    finally:
        crosscoder.train(was_training)
    n = len(chosen)
    total_G -= sum_GD.square().sum(1) / max(n, 1)
    fvu = _ratio(residual_G.sum(), total_G.sum())
    return {
        "fvu": fvu,
        "explained_variance": None if fvu is None else 1 - fvu,
        "fvu_per_block": [_ratio(r, t) for r, t in zip(residual_G, total_G, strict=True)],
        "l0": active / max(n, 1),
        "dead_fraction": float((~fired).double().mean()),
        "n_examples": n,
    }


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None


def _steps(n: int, batch_size: int, progress: bool) -> Any:
    steps = range(0, n, batch_size)
    if not progress:
        return steps
    from tqdm import tqdm

    return tqdm(steps, desc="evaluate", unit="batch", leave=False)
