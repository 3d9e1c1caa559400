"""FVU, L0 and dead latents, summed over batches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from groupcc.data.orbits import Orbits
from groupcc.models.latents import SparseLatents

__all__ = ["MetricSums", "batch_starts"]


class MetricSums:
    """Sums over batches, fp64 on the CPU, from which `metrics` follow. `fired_L` counts each latent's firings."""

    def __init__(self, source: Orbits, indices: torch.Tensor, n_latents: int) -> None:
        # Squares are summed about a value near the mean: about zero, fp64 or not, a large mean would drown them.
        self.origin_GD = source.take(indices[:256]).cpu().mean(0)
        self.residual_G = torch.zeros(len(self.origin_GD), dtype=torch.float64)
        self.square_G = torch.zeros(len(self.origin_GD), dtype=torch.float64)
        self.sum_GD = torch.zeros(self.origin_GD.shape, dtype=torch.float64)
        self.fired_L = torch.zeros(n_latents, dtype=torch.int64)
        self.n_examples = 0

    def add(self, acts_NGD: torch.Tensor, reconstruction_NGD: torch.Tensor, latents: SparseLatents) -> None:
        """One batch of activations, their reconstructions, and the latents active in them."""
        acts = acts_NGD.cpu()
        self.residual_G += (acts - reconstruction_NGD.float().cpu()).square().sum((0, 2), dtype=torch.float64)
        centred = (acts - self.origin_GD).double()
        self.square_G += centred.square().sum((0, 2))
        self.sum_GD += centred.sum(0)
        self.fired_L += torch.bincount(latents.indices[latents.acts > 0].cpu(), minlength=len(self.fired_L))
        self.n_examples += len(acts)

    def metrics(self) -> dict[str, Any]:
        """fvu, explained_variance, fvu_per_block [G], l0, dead_fraction, n_examples, as `groupcc.evaluate` has them."""
        n = max(self.n_examples, 1)
        total_G = self.square_G - self.sum_GD.square().sum(1) / n
        fvu = _ratio(self.residual_G.sum(), total_G.sum())
        return {
            "fvu": fvu,
            "explained_variance": None if fvu is None else 1 - fvu,
            "fvu_per_block": [_ratio(r, t) for r, t in zip(self.residual_G, total_G, strict=True)],
            "l0": int(self.fired_L.sum()) / n,
            "dead_fraction": float((self.fired_L == 0).double().mean()),
            "n_examples": self.n_examples,
        }


def batch_starts(n: int, batch_size: int, what: str, progress: bool) -> Iterable[int]:
    """0, batch_size, … below n, with a bar named `what`."""
    starts = range(0, n, batch_size)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc=what, unit="batch", leave=False)


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None
