"""What latents do on data: how often, how strongly and where they fire, and how well the dictionary explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from groupcc.analysis.evidence.contribution import Contribution, ContributionSums
from groupcc.data import Orbits, as_orbits
from groupcc.models import GroupCrosscoder
from groupcc.models.metrics import MetricSums, batch_starts

__all__ = ["Activity", "TopExamples", "measure_activity"]

CANDIDATES = 8
"""Candidates kept for each top example that is asked for; neighbours are struck out from among them at the end."""


@dataclass(frozen=True, eq=False)
class TopExamples:
    """The most activating examples of each latent: `indices` int64 [L, T] (−1 where there are fewer), `acts` [L, T].

    `poses` int64 [L, T]: of a tied crosscoder the pose in which the base latent is present there; else None.
    """

    indices: torch.Tensor
    acts: torch.Tensor
    poses: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Activity:
    """What `measure_activity` found.

    - `frequency` [L]: share of examples in which a latent is active. `mean_act` [L]: its mean act where active, else 0.
    - `contribution`: what each latent explains where it fires, and which are spare.
    - `pose_counts` int64 [L, G]: how often each base latent of a tied crosscoder fired in each pose; else None.
    - `metrics` over these examples: fvu, fvu_per_block, explained_variance, l0, dead_fraction, n_examples.
    """

    frequency: torch.Tensor
    mean_act: torch.Tensor
    top_examples: TopExamples
    metrics: dict[str, Any]
    contribution: Contribution
    pose_counts: torch.Tensor | None = None


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
    L, G = crosscoder.config.n_latents, crosscoder.group.order
    source = as_orbits(orbits, G, crosscoder.config.d_in)
    everything = torch.arange(len(source))
    sums, contributions = MetricSums(source, everything, L), ContributionSums(crosscoder)
    total_act = torch.zeros(L, dtype=torch.float64)
    present = torch.zeros(L, dtype=torch.int64)
    pose_counts = torch.zeros(L * G, dtype=torch.int64) if crosscoder.config.tied else None
    best = _Candidates(L, CANDIDATES * top)
    was_training = crosscoder.training
    crosscoder.eval()
    try:
        for start in batch_starts(len(source), batch_size, "analyze", progress):
            acts = source.take(everything[start : start + batch_size])
            latents = crosscoder.encode(acts.to(crosscoder.W_dec.device))
            reconstruction = crosscoder.decode(latents)
            sums.add(acts, reconstruction, latents)
            contributions.add(acts, reconstruction, latents)
            active = latents.acts > 0
            which = latents.indices[active].cpu()
            strength = latents.acts[active].float().cpu()
            total_act.index_add_(0, which, strength.double())
            rows = active.nonzero()[:, 0].cpu()
            poses = torch.zeros_like(which)
            if pose_counts is not None:
                assert latents.poses is not None
                poses = latents.poses[active].cpu()
                pose_counts += torch.bincount(which * G + poses, minlength=L * G)
                # A base latent may be active in several poses of one example.
                present += torch.bincount((rows * L + which).unique() % L, minlength=L)
            best.add(which, strength, start + rows, poses)
    finally:
        crosscoder.train(was_training)
    fired = sums.fired_L
    mean_act = torch.where(fired > 0, total_act / fired.clamp_min(1), 0.0)
    frequency = (fired if pose_counts is None else present).double() / len(source)
    return Activity(
        frequency.float(),
        mean_act.float(),
        best.spread_out(source, top, min_distance, with_poses=pose_counts is not None),
        sums.metrics(),
        contributions.result(),
        None if pose_counts is None else pose_counts.view(L, G),
    )


class _Candidates:
    """The most activating (latent, act, example) entries so far, at most `capacity` of each latent."""

    def __init__(self, latents: int, capacity: int) -> None:
        self.latents, self.capacity = latents, capacity
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
        sizes = torch.bincount(which, minlength=self.latents)
        rank = torch.arange(len(order)) - (sizes.cumsum(0) - sizes)[which[order]]
        order = order[rank < self.capacity]
        self.which, self.act, self.example, self.pose = which[order], act[order], example[order], pose[order]

    def spread_out(self, orbits: Orbits, top: int, min_distance: float | None, *, with_poses: bool) -> TopExamples:
        indices = torch.full((self.latents, top), -1, dtype=torch.int64)
        acts = torch.zeros(self.latents, top)
        poses = torch.zeros(self.latents, top, dtype=torch.int64)
        places = _Places(orbits, min_distance)
        chosen: list[int] = []
        latent = -1
        rows = zip(self.which.tolist(), self.act.tolist(), self.example.tolist(), self.pose.tolist(), strict=True)
        for which, act, example, pose in rows:
            if which != latent:
                latent, chosen = which, []
            if len(chosen) < top and not any(places.neighbours(example, other) for other in chosen):
                indices[which, len(chosen)] = example
                acts[which, len(chosen)] = act
                poses[which, len(chosen)] = pose
                chosen.append(example)
        return TopExamples(indices, acts, poses if with_poses else None)


class _Places:
    """Whether two examples show the same place of the same image."""

    def __init__(self, orbits: Orbits, min_distance: float | None) -> None:
        self._images = orbits.image_ids.tolist()
        self._positions_of = getattr(orbits, "positions_of", None)
        lattice = getattr(orbits, "lattice", None)
        if min_distance is None:
            min_distance = 0.5 * lattice.receptive_field / lattice.stride if lattice is not None else float("inf")
        self._distance = min_distance
        self._known: dict[int, tuple[float, float]] = {}

    def neighbours(self, a: int, b: int) -> bool:
        if self._images[a] != self._images[b]:
            return False
        if self._positions_of is None:
            return True
        (ax, ay), (bx, by) = self._position(a), self._position(b)
        return (ax - bx) ** 2 + (ay - by) ** 2 < self._distance**2

    def _position(self, example: int) -> tuple[float, float]:
        if example not in self._known and self._positions_of is not None:
            self._known[example] = self._positions_of(example)
        return self._known[example]
