"""What latents do on data: how often, how strongly and where they fire, and how well the dictionary explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from groupcc.errors import argument_error

if TYPE_CHECKING:
    from groupcc.models import GroupCrosscoder

__all__ = ["Activity", "TopExamples", "measure_activity"]

CANDIDATES = 8
"""Candidates kept for each top example that is asked for; neighbours are struck out from among them at the end."""


@dataclass(frozen=True, eq=False)
class TopExamples:
    """The most activating examples of each latent: `indices` int64 [L, T] (−1 where there are fewer), `acts` [L, T]."""

    indices: torch.Tensor
    acts: torch.Tensor


@dataclass(frozen=True, eq=False)
class Activity:
    """What `measure_activity` found.

    - `frequency` [L]: share of examples in which a latent is active. `mean_act` [L]: its mean act where active, else 0.
    - `metrics` over these examples: fvu, fvu_per_block, explained_variance, l0, dead_fraction, n_examples.
    """

    frequency: torch.Tensor
    mean_act: torch.Tensor
    top_examples: TopExamples
    metrics: dict[str, Any]


@torch.no_grad()
def measure_activity(
    crosscoder: GroupCrosscoder,
    orbits: Any,
    *,
    top: int = 8,
    batch_size: int = 1024,
    min_distance: float | None = None,
    progress: bool = False,
) -> Activity:
    """One pass over `orbits` (a store, or a tensor [M, G, D]) in inference mode.

    Of the top examples of a latent no two come from one image closer than `min_distance` map pixels (Euclidean); None
    is half the layer's receptive field. Without positions (a tensor) every example stands for itself; `image_ids`
    without positions: one example an image. Ties go to the lower example. Sums in fp64, deterministic on the CPU.
    """
    G, D, L = crosscoder.group.order, crosscoder.config.d_in, crosscoder.config.n_latents
    _check_orbits(orbits, G, D)
    device = crosscoder.W_dec.device
    n = len(orbits)
    count = torch.zeros(L, dtype=torch.float64)
    total_act = torch.zeros(L, dtype=torch.float64)
    residual_G = torch.zeros(G, dtype=torch.float64)
    square_G = torch.zeros(G, dtype=torch.float64)
    sum_GD = torch.zeros(G, D, dtype=torch.float64)
    # About a value near the mean: about zero, a large mean would drown the squares.
    origin = orbits[: min(n, 256)].float().cpu().mean(0)
    best = _Candidates(L, CANDIDATES * top)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in _starts(n, batch_size, progress):
            acts = orbits[start : min(start + batch_size, n)].float()
            latents = crosscoder.encode(acts.to(device))
            reconstruction = crosscoder.decode(latents).float().cpu()
            acts = acts.cpu()
            residual_G += (acts - reconstruction).square().sum((0, 2), dtype=torch.float64)
            centred = (acts - origin).double()
            square_G += centred.square().sum((0, 2))
            sum_GD += centred.sum(0)
            active = latents.acts > 0
            which = latents.indices[active].cpu()
            strength = latents.acts[active].float().cpu()
            example = start + active.nonzero()[:, 0].cpu()
            count += torch.bincount(which, minlength=L)
            total_act.index_add_(0, which, strength.double())
            best.add(which, strength, example)
    finally:
        crosscoder.train(was_training)
    square_G -= sum_GD.square().sum(1) / n
    fvu = _ratio(residual_G.sum(), square_G.sum())
    metrics = {
        "fvu": fvu,
        "explained_variance": None if fvu is None else 1 - fvu,
        "fvu_per_block": [_ratio(r, t) for r, t in zip(residual_G, square_G, strict=True)],
        "l0": float(count.sum()) / n,
        "dead_fraction": float((count == 0).double().mean()),
        "n_examples": n,
    }
    mean_act = torch.where(count > 0, total_act / count.clamp_min(1), 0.0)
    return Activity((count / n).float(), mean_act.float(), best.spread_out(orbits, top, min_distance), metrics)


class _Candidates:
    """The most activating (latent, act, example) entries so far, at most `capacity` of each latent."""

    def __init__(self, latents: int, capacity: int) -> None:
        self.latents, self.capacity = latents, capacity
        self.which = torch.zeros(0, dtype=torch.int64)
        self.act = torch.zeros(0)
        self.example = torch.zeros(0, dtype=torch.int64)

    def add(self, which: torch.Tensor, act: torch.Tensor, example: torch.Tensor) -> None:
        which = torch.cat([self.which, which])
        act = torch.cat([self.act, act])
        example = torch.cat([self.example, example])
        # Examples come in rising order, so stable sorts leave ties to the lower one.
        order = act.argsort(descending=True, stable=True)
        order = order[which[order].argsort(stable=True)]
        sizes = torch.bincount(which, minlength=self.latents)
        rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[which[order]]
        order = order[rank < self.capacity]
        self.which, self.act, self.example = which[order], act[order], example[order]

    def spread_out(self, orbits: Any, top: int, min_distance: float | None) -> TopExamples:
        indices = torch.full((self.latents, top), -1, dtype=torch.int64)
        acts = torch.zeros(self.latents, top)
        places = _Places(orbits, min_distance)
        chosen: list[int] = []
        latent = -1
        rows = zip(self.which.tolist(), self.act.tolist(), self.example.tolist(), strict=True)
        for which, act, example in rows:
            if which != latent:
                latent, chosen = which, []
            if len(chosen) < top and not any(places.neighbours(example, other) for other in chosen):
                indices[which, len(chosen)] = example
                acts[which, len(chosen)] = act
                chosen.append(example)
        return TopExamples(indices, acts)


class _Places:
    """Whether two examples show the same place of the same image."""

    def __init__(self, orbits: Any, min_distance: float | None) -> None:
        image_ids = getattr(orbits, "image_ids", None)
        self._images = None if image_ids is None else image_ids.tolist()
        self._positions_of = getattr(orbits, "positions_of", None)
        lattice = getattr(orbits, "lattice", None)
        if min_distance is None:
            min_distance = 0.5 * lattice.receptive_field / lattice.stride if lattice is not None else float("inf")
        self._distance = min_distance
        self._known: dict[int, tuple[float, float]] = {}

    def neighbours(self, a: int, b: int) -> bool:
        if self._images is None or self._images[a] != self._images[b]:
            return False
        if self._positions_of is None:
            return True
        (ax, ay), (bx, by) = self._position(a), self._position(b)
        return (ax - bx) ** 2 + (ay - by) ** 2 < self._distance**2

    def _position(self, example: int) -> tuple[float, float]:
        if example not in self._known and self._positions_of is not None:
            self._known[example] = self._positions_of(example)
        return self._known[example]


def _check_orbits(orbits: Any, G: int, D: int) -> None:
    if not hasattr(orbits, "__len__") or not hasattr(orbits, "__getitem__"):
        got = type(orbits).__name__
    elif len(orbits) == 0:
        got = "no examples"
    elif not isinstance(orbits[:1], torch.Tensor):
        got = f"a {type(orbits).__name__}"
    elif tuple(orbits[:1].shape[1:]) != (G, D):
        got = f"examples of shape {tuple(orbits[:1].shape[1:])}"
    else:
        return
    raise argument_error(
        "orbits",
        expected=f"an orbit store or a tensor [M, G, D] with M >= 1 and [G, D] = [{G}, {D}]",
        got=got,
        remedy="Use the group and the layer that the crosscoder was trained with; groupcc.OrbitStore.open(directory) "
        "reads a store, torch.from_numpy(array) makes a tensor.",
    )


def _ratio(part: torch.Tensor, whole: torch.Tensor) -> float | None:
    return float(part / whole) if whole > 0 else None


def _starts(n: int, batch_size: int, progress: bool) -> Any:
    starts = range(0, n, batch_size)
    if not progress:
        return starts
    from tqdm import tqdm

    return tqdm(starts, desc="analyse", unit="batch", leave=False)
