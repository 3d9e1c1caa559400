"""The neighbour graph: which latents are alike up to an element of the group, how alike, and by which."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from groupcc.analysis.families.group_fourier import GroupFourier
from groupcc.groups import PlanarGroup
from groupcc.groups.arrays import FloatArray, IntArray
from groupcc.groups.autocorrelation import latent_step

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["NEIGHBOUR_FLOOR", "Correlations", "NeighbourGraph", "find_neighbours", "live_latents"]

NEIGHBOUR_FLOOR = 0.5
"""Least similarity of two latents that count as neighbours, by default."""

MAX_PAIR_NUMBERS = 1 << 22
"""Cosines held at once, latents × latents × |G|: 16 MiB in fp32, about what stays in a CPU's cache."""

MAX_PAIR_NUMBERS_GPU = 1 << 28
"""The same on a GPU, 1 GiB: it is faster with larger products."""


@dataclass(frozen=True, eq=False)
class NeighbourGraph:
    """Pairs of latents with max_h cos(d_i, R_h d_j) ≥ `floor`, both ways, as compressed sparse rows.

    The entries of latent i are `starts`[i] … `starts`[i + 1] − 1 of the other fields, by rising j; j = i is none.

    - `starts` int64 [L + 1]. `neighbours` int32 [E]: j.
    - `similarity` float32 [E]: max_h cos(d_i, R_h d_j). The same both ways.
    - `poses` int16 [E]: the h of the maximum, so d_i ≈ R_h d_j; h⁻¹ the other way. If d_j has a stabilizer H, every
      element of hH is as good but for rounding, and which of them it is means nothing.
    - `rotations` int16 [E]: the best h that is a rotation. For shapes with a mirror, whose axis may lie between two
      elements, this is the pose that means something.

    12 bytes an entry: nothing if latents differ, 3.2 GB if all of 16,384 are alike.
    """

    starts: IntArray
    neighbours: np.ndarray
    similarity: np.ndarray
    poses: np.ndarray
    rotations: np.ndarray
    floor: float

    def __len__(self) -> int:
        """L, the number of latents."""
        return len(self.starts) - 1

    def rows(self) -> IntArray:
        """i of each entry, int64 [E]."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def of(self, latent: int) -> slice:
        """The entries of a latent."""
        return slice(int(self.starts[latent]), int(self.starts[latent + 1]))

    def subgraph(self, keep: np.ndarray) -> NeighbourGraph:
        """Returns the same latents with the entries that `keep` (bool [E], the same both ways) says."""
        counts = np.bincount(self.rows()[keep], minlength=len(self))
        starts = np.concatenate([[0], counts.cumsum()]).astype(np.int64)
        return NeighbourGraph(
            starts, self.neighbours[keep], self.similarity[keep], self.poses[keep], self.rotations[keep], self.floor
        )

    def among(self, floor: float, left_out: np.ndarray) -> NeighbourGraph:
        """Returns the pairs with a similarity of `floor` or more, without those that have a latent in `left_out`
        (bool [L])."""
        keep = self.similarity >= np.float32(floor)
        keep &= ~left_out[self.rows()] & ~left_out[self.neighbours]
        return replace(self.subgraph(keep), floor=floor)

    def matrix(self, values: np.ndarray) -> csr_array:
        """Returns values of the entries [E] as a SciPy matrix [L, L]."""
        from scipy.sparse import csr_array

        return csr_array((values, self.neighbours, self.starts), shape=(len(self), len(self)))


class Correlations:
    """cos(d_i, R_h d_j) of the latents `live` (int64), computed when it is asked for.

    Holds their Fourier coefficients on the group: one copy of the live part of the decoder.
    """

    def __init__(self, W_dec_LGD: torch.Tensor, group: PlanarGroup, live: torch.Tensor) -> None:
        self.group, self.live = group, live
        self._fourier = GroupFourier(group, W_dec_LGD)
        step = latent_step(max(len(W_dec_LGD), 1), group, W_dec_LGD.shape[2])
        self._coefficients = self._fourier.forward_units(W_dec_LGD, live, step)
        self._place = torch.full((len(W_dec_LGD),), -1, dtype=torch.int64, device=live.device)
        self._place[live] = torch.arange(len(live), device=live.device)

    def with_reference(self, latents: torch.Tensor, reference: int) -> FloatArray:
        """Returns cos(d_l, R_h d_reference) for the live latents at int64 [n]: float64 [n, G]."""
        place = int(self._place[reference])
        rows = self._fourier.select(self._coefficients, self._place[latents.to(self.live.device)])
        cosine = self._fourier.correlate(rows, self._fourier.rows(self._coefficients, place, place + 1))
        return cosine[:, 0].double().cpu().numpy()

    def neighbours(self, floor: float) -> NeighbourGraph:
        """See [`find_neighbours`][groupcc.analysis.find_neighbours]."""
        latents = len(self.live)
        most = MAX_PAIR_NUMBERS if self.live.device.type == "cpu" else MAX_PAIR_NUMBERS_GPU
        step = max(1, min(latents, int((most / self.group.order) ** 0.5)))
        pairs: list[list[np.ndarray]] = []
        for start in range(0, latents, step):
            rows = self._fourier.rows(self._coefficients, start, start + step)
            for other in range(start, latents, step):
                others = self._fourier.rows(self._coefficients, other, other + step)
                cosine = self._fourier.correlate(rows, others)
                near = cosine.amax(2) >= floor
                if other == start:
                    near = near.triu(1)
                i, j = near.nonzero().unbind(1)
                curve = cosine[i, j]
                pair = (i + start, j + other, curve.amax(1), curve.argmax(1), curve[:, : self.group.n].argmax(1))
                kinds = (np.int32, np.int32, np.float32, np.int16, np.int16)
                pairs.append([part.cpu().numpy().astype(kind) for part, kind in zip(pair, kinds, strict=True)])
        if not pairs:
            pairs.append([np.zeros(0, dtype=np.int16)] * 5)
        live = self.live.cpu().numpy().astype(np.int32)
        first, second, similarity, poses, rotations = (np.concatenate(part) for part in zip(*pairs, strict=True))
        inverse = self.group.inverse.astype(np.int16)
        one = np.concatenate([live[first], live[second]])
        another = np.concatenate([live[second], live[first]])
        order = np.lexsort((another, one))
        counts = np.bincount(one, minlength=len(self._place))
        return NeighbourGraph(
            np.concatenate([[0], counts.cumsum()]).astype(np.int64),
            another[order],
            np.concatenate([similarity, similarity])[order].astype(np.float32),
            np.concatenate([poses, inverse[poses]])[order],
            np.concatenate([rotations, inverse[rotations]])[order],
            floor,
        )


def find_neighbours(
    W_dec_LGD: torch.Tensor, group: PlanarGroup, *, floor: float = NEIGHBOUR_FLOOR, dead: torch.Tensor | None = None
) -> NeighbourGraph:
    """Returns every pair of latents with max_h cos(d_i, R_h d_j) ≥ `floor`; none with a latent of zeros, or of `dead`
    (bool [L]).

    Each pair is compared once through the Fourier transform on the group (`GroupFourier`), in
    Σ_ρ d_ρ³ · D multiplications: 59,520 for D32 and D = 480. A block of latents is compared with a block of others at a
    time. Memory is one more copy of the decoder, a block, and the pairs. Deterministic on the CPU.
    """
    return Correlations(W_dec_LGD, group, live_latents(W_dec_LGD, dead)).neighbours(floor)


def live_latents(W_dec_LGD: torch.Tensor, dead: torch.Tensor | None) -> torch.Tensor:
    """Returns the latents that are neither zero nor in `dead`, int64, ascending."""
    alive = W_dec_LGD.flatten(1).norm(dim=1) > 0
    return (alive if dead is None else alive & ~dead.to(alive.device)).nonzero()[:, 0]
