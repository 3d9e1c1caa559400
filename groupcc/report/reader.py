"""Reader: an atlas as arrays and words, read once for a whole page or figure."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from markupsafe import Markup

from groupcc.analysis import KINDS, Atlas
from groupcc.analysis.numbers import percent
from groupcc.groups import PlanarGroup
from groupcc.report.svg import ring_figure
from groupcc.report.words import Kind, kind_of, kinds_for, shape_hint, stabilizer_words

__all__ = ["Reader", "power_by_frequency", "select_latents"]


class Reader:
    """What drawings and words are made of.

    `correlation`, `norms` float64 [L, G]: C and block norms, 0 for NaN. `power` [L, n//2 + 1]: share of power by
    angular frequency. `modulation` [L]. `frequency`: [L], or None without orbits. `table`: the atlas's rows.
    """

    def __init__(self, atlas: Atlas) -> None:
        self.atlas, self.group = atlas, atlas.group
        self.correlation = np.nan_to_num(atlas.autocorrelation.numpy().astype(np.float64))
        self.norms = np.nan_to_num(atlas.block_norms.numpy().astype(np.float64))
        self.power = power_by_frequency(np.nan_to_num(atlas.spectrum.numpy().astype(np.float64)), self.group)
        self.modulation = atlas.modulation.numpy().astype(np.float64)
        self.frequency = None if atlas.frequency is None else atlas.frequency.numpy().astype(np.float64)
        self.kinds = atlas.kinds

    @cached_property
    def table(self) -> list[dict[str, Any]]:
        return self.atlas.table()

    @cached_property
    def kind_counts(self) -> list[tuple[Kind, int]]:
        """The kinds to list, and how many latents each has."""
        counts = self.atlas.kind_counts
        present = {kind for kind, n in counts.items() if n}
        return [(kind, counts[kind.key]) for kind in kinds_for(self.group, present)]

    @property
    def live(self) -> list[int]:
        """Every live latent, in the order of the page: kind by kind, and in each kind the clearest first.

        Those that change most are the clearest, of the invariant ones those that change least.
        """

        def clearest(latent: int) -> tuple[int, float]:
            kind, change = self.kinds[latent], float(self.modulation[latent])
            return KINDS.index(kind), change if kind == "invariant" else -change

        return sorted((latent for latent, kind in enumerate(self.kinds) if kind != "dead"), key=clearest)

    def kind(self, latent: int) -> Kind:
        """Returns the words for a latent's kind."""
        return kind_of(self.kinds[latent], self.group)

    def hint(self, latent: int) -> str:
        """Returns what shape a latent most likely is."""
        name = self.atlas.stabilizers[latent].name
        return shape_hint(self.kinds[latent], self.correlation[latent], self.group, name)

    def sentence(self, latent: int) -> str:
        """Returns a latent's stabilizer in words."""
        return stabilizer_words(self.atlas.stabilizers[latent], self.group)

    def axes(self, latent: int) -> list[float]:
        """Returns a latent's mirror lines in degrees, none if every mirroring leaves it the same."""
        stabilizer = self.atlas.stabilizers[latent]
        rotations = int((stabilizer.mask & ~self.group.reflections).sum())
        if stabilizer.axis is None or stabilizer.kind in ("invariant", "dead") or rotations > 4:
            return []
        return [(stabilizer.axis + 180 * k / rotations) % 180 for k in range(rotations)]

    def ring(self, latent: int, *, large: bool = False) -> Markup:
        """Returns the place where the page's script draws a latent's ring; a large one has its mirror lines."""
        cells = Markup('<g data-ring="{}"></g>').format(latent)
        if not large:
            return ring_figure(cells, self.group, f"Ring of latent {latent}: {self.sentence(latent)}")
        label = f"Autocorrelation of latent {latent} over the group. {self.sentence(latent)}"
        return ring_figure(cells, self.group, label, self.axes(latent), large=True)

    def spectrum_label(self, latent: int) -> str:
        """Returns a latent's spectrum in words."""
        shares = self.power[latent]
        strongest = [f"{percent(shares[k])} at {k}" for k in np.argsort(-shares, kind="stable")[:3] if shares[k] > 0]
        return f"Share of power of latent {latent} by repeats in a full turn: {', '.join(strongest) or 'none'}"


def power_by_frequency(spectrum_LR: np.ndarray, group: PlanarGroup) -> np.ndarray:
    """Returns the share of power at each angular frequency 0 … n/2, [L, n//2 + 1]: the irreps of one frequency
    together."""
    power = np.zeros((len(spectrum_LR), group.n // 2 + 1))
    for column, irrep in enumerate(group.irreps()):
        power[:, irrep.frequency] += spectrum_LR[:, column]
    return power


def select_latents(kinds: list[str], frequency: np.ndarray | None, limit: int) -> list[int]:
    """Returns at most `limit` latents, ascending: from each kind in turn the most often active one, so that no kind is
    crowded out.

    Without frequencies the lower index goes first. Dead latents are never chosen.
    """
    queues: dict[str, list[int]] = {}
    for latent, kind in enumerate(kinds):
        if kind != "dead":
            queues.setdefault(kind, []).append(latent)
    if frequency is not None:
        weight = np.nan_to_num(frequency)
        for queue in queues.values():
            queue.sort(key=lambda latent: (-weight[latent], latent))
    chosen: list[int] = []
    depth = 0
    while len(chosen) < limit and any(depth < len(queue) for queue in queues.values()):
        chosen += [queue[depth] for queue in queues.values() if depth < len(queue)]
        depth += 1
    return sorted(chosen[:limit])
