"""What latents do on data: how often, how strongly and where they fire, and how well the dictionary explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from groupcc.analysis.evidence.contribution import Contribution, ContributionSums
from groupcc.data import Orbits, as_orbits
from groupcc.models import GroupCrosscoder, SparseLatents
from groupcc.models.metrics import MetricSums, batch_starts

__all__ = ["Activity", "TopExamples", "measure_activity"]

PARTS = 20
"""Parts to which photographs are dealt out, so that a dial knows how firings cluster."""

CANDIDATES = 8
"""Candidates kept for each top example that is asked for, beside the best of each photograph. Neighbours are struck out
from among them at the end."""


@dataclass(frozen=True, eq=False)
class TopExamples:
    """The most activating examples of each latent: `indices` int64 [L, T] (−1 if there are fewer), `acts` [L, T].

    They come from different photographs, as far as there are T in which the latent fires.

    `poses` int64 [L, T]: if latents have poses, the pose in which the latent is active there; else None.
    """

    indices: torch.Tensor
    acts: torch.Tensor
    poses: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Activity:
    """What `measure_activity` returns.

    - `frequency` [L]: share of examples in which a latent is active. `mean_act` [L]: its mean act where active, else 0.
    - `contribution`: what each latent explains where it fires, and which latents are spare.
    - `pose_counts` int64 [L, G]: if latents have poses, how often each fired in each pose; else None. `pose_parts`
      int32 [`PARTS`, L, G]: the same by part, if photographs are dealt out to parts at random (seed 0).
    - `metrics` over these examples: fvu, fvu_per_block, explained_variance, l0, dead_fraction, n_examples.
    """

    frequency: torch.Tensor
    mean_act: torch.Tensor
    top_examples: TopExamples
    metrics: dict[str, Any]
    contribution: Contribution
    pose_counts: torch.Tensor | None = None
    pose_parts: torch.Tensor | None = None


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

    The top examples of a latent come from different photographs, one from each. Where the latent fires in fewer
    photographs than `top`, others follow, and no two come from one image closer than `min_distance` map pixels
    (Euclidean); None is half the layer's receptive field. Orbits that know images but no positions give one example an
    image. In a tensor every example stands for itself. Ties go to the lower example. Sums in fp64, deterministic on the
    CPU.
    """
    L, G = crosscoder.config.n_latents, crosscoder.group.order
    source = as_orbits(orbits, G, crosscoder.config.d_in)
    everything = torch.arange(len(source))
    sums, contributions = MetricSums(source, everything, L), ContributionSums(crosscoder)
    firings, best = _Firings(L, G, source.photograph_ids.cpu()), _Candidates(L, top, source.photograph_ids.cpu())
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in batch_starts(len(source), batch_size, "analyze", progress):
            acts = source.take(everything[start : start + batch_size])
            latents = crosscoder.encode(acts.to(crosscoder.W_dec.device))
            reconstruction = crosscoder.decode(latents)
            sums.add(acts, reconstruction, latents)
            contributions.add(acts, reconstruction, latents)
            firings.add(start, latents, best)
    finally:
        crosscoder.train(was_training)
    fired = sums.fired_L
    mean_act = torch.where(fired > 0, firings.total_act / fired.clamp_min(1), 0.0)
    has_poses = firings.pose_counts is not None
    frequency = (firings.present if has_poses else fired).double() / len(source)
    return Activity(
        frequency.float(),
        mean_act.float(),
        best.spread_out(source, min_distance, with_poses=has_poses),
        sums.metrics(),
        contributions.result(),
        firings.pose_counts,
        firings.pose_parts,
    )


class _Firings:
    """Sums over the active latents of batches, on the CPU.

    `total_act` [L]: the sum of the acts. If latents have poses: `pose_counts` [L, G], and `present` [L], the number of
    examples in which a latent is active, in one pose or several.
    """

    def __init__(self, L: int, G: int, photograph_ids: torch.Tensor) -> None:
        self.L, self.G = L, G
        photographs, photograph = photograph_ids.unique(return_inverse=True)
        # At random: data in a regular order would otherwise go to parts by its pose.
        dealt = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(0)) % PARTS
        self.part = dealt[photograph]
        self.total_act = torch.zeros(L, dtype=torch.float64)
        self.present = torch.zeros(L, dtype=torch.int64)
        self.pose_counts: torch.Tensor | None = None
        self.pose_parts: torch.Tensor | None = None

    def add(self, start: int, latents: SparseLatents, best: _Candidates) -> None:
        """One batch, whose first example is the `start`-th. Its firings are candidates for the `best`."""
        active = latents.acts > 0
        which = latents.indices[active].cpu()
        strength = latents.acts[active].float().cpu()
        self.total_act.index_add_(0, which, strength.double())
        rows = active.nonzero()[:, 0].cpu()
        poses = torch.zeros_like(which)
        if latents.poses is not None:
            L, G = self.L, self.G
            poses = latents.poses[active].cpu()
            cell = (self.part[start + rows] * L + which) * G + poses
            parts = torch.bincount(cell, minlength=PARTS * L * G).view(PARTS, L, G)
            counts, parts = parts.sum(0), parts.int()
            self.pose_counts = counts if self.pose_counts is None else self.pose_counts + counts
            self.pose_parts = parts if self.pose_parts is None else self.pose_parts + parts
            self.present += torch.bincount((rows * L + which).unique() % L, minlength=L)
        best.add(which, strength, start + rows, poses)


class _Candidates:
    """The most activating (latent, act, example) entries so far, by latent, strongest first.

    Of each latent there are `CANDIDATES` times `top`, and the best entry of each of the `top` photographs in which the
    latent is strongest.
    """

    def __init__(self, latents: int, top: int, photograph_ids: torch.Tensor) -> None:
        self.latents, self.top = latents, top
        self.photographs, self.photograph = photograph_ids.unique(return_inverse=True)
        self.which = torch.zeros(0, dtype=torch.int64)
        self.act = torch.zeros(0)
        self.example = torch.zeros(0, dtype=torch.int64)
        self.pose = torch.zeros(0, dtype=torch.int64)

    def add(self, which: torch.Tensor, act: torch.Tensor, example: torch.Tensor, pose: torch.Tensor) -> None:
        which = torch.cat([self.which, which])
        act = torch.cat([self.act, act])
        example = torch.cat([self.example, example])
        pose = torch.cat([self.pose, pose])
        # Examples come in rising order, so stable sorts leave ties to the lower one.
        order = act.argsort(descending=True, stable=True)
        order = order[which[order].argsort(stable=True)]
        which, act, example, pose = which[order], act[order], example[order], pose[order]
        kept = self._rank(which) < CANDIDATES * self.top
        best = self._best_of_photographs(which, example).nonzero()[:, 0]
        kept[best[self._rank(which[best]) < self.top]] = True
        self.which, self.act, self.example, self.pose = which[kept], act[kept], example[kept], pose[kept]

    def _rank(self, which: torch.Tensor) -> torch.Tensor:
        """Returns the place of each entry among those of its latent; entries are sorted by latent."""
        sizes = torch.bincount(which, minlength=self.latents)
        return torch.arange(len(which)) - (sizes.cumsum(0) - sizes)[which]

    def _best_of_photographs(self, which: torch.Tensor, example: torch.Tensor) -> torch.Tensor:
        """Returns for each entry whether none before it is of the same latent and photograph, bool."""
        key, order = (which * len(self.photographs) + self.photograph[example]).sort(stable=True)
        first = torch.ones(len(key), dtype=torch.bool)
        first[1:] = key[1:] != key[:-1]
        return torch.zeros_like(first).index_put((order,), first)

    def spread_out(self, orbits: Orbits, min_distance: float | None, *, with_poses: bool) -> TopExamples:
        """Returns the top examples: the best of different photographs, then others that are no neighbours of these."""
        indices = torch.full((self.latents, self.top), -1, dtype=torch.int64)
        acts = torch.zeros(self.latents, self.top)
        poses = torch.zeros(self.latents, self.top, dtype=torch.int64)
        places = _Places(orbits, min_distance)
        best = self._best_of_photographs(self.which, self.example).tolist()
        examples, stop = self.example.tolist(), 0
        for latent, size in enumerate(torch.bincount(self.which, minlength=self.latents).tolist()):
            start, stop = stop, stop + size
            rows = [start + row for row in _shown(examples[start:stop], best[start:stop], self.top, places)]
            indices[latent, : len(rows)] = self.example[rows]
            acts[latent, : len(rows)] = self.act[rows]
            poses[latent, : len(rows)] = self.pose[rows]
        return TopExamples(indices, acts, poses if with_poses else None)


def _shown(examples: list[int], best: list[bool], top: int, places: _Places) -> list[int]:
    """Returns which of one latent's examples, strongest first, are its top ones, ascending. `best`: whether an example
    is the strongest of its photograph."""
    chosen = [row for row, is_best in enumerate(best) if is_best][:top]
    for row, example in enumerate(examples):
        if len(chosen) == top:
            break
        if not best[row] and not any(places.neighbours(example, examples[other]) for other in chosen):
            chosen.append(row)
    return sorted(chosen)


class _Places:
    """Whether two examples show the same place of the same image."""

    def __init__(self, orbits: Orbits, min_distance: float | None) -> None:
        self._images = orbits.image_ids.tolist()
        self._orbits = orbits
        self._distance = orbits.place_radius if min_distance is None else min_distance
        self._known: dict[int, tuple[float, float] | None] = {}

    def neighbours(self, a: int, b: int) -> bool:
        if self._images[a] != self._images[b]:
            return False
        place, other = self._position(a), self._position(b)
        if place is None or other is None:
            return True
        (ax, ay), (bx, by) = place, other
        return (ax - bx) ** 2 + (ay - by) ** 2 < self._distance**2

    def _position(self, example: int) -> tuple[float, float] | None:
        if example not in self._known:
            self._known[example] = self._orbits.positions_of(example)
        return self._known[example]
