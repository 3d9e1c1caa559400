"""Two atlases side by side: which families appear, vanish, or change their symmetry."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.families import FAMILY_THRESHOLD
from groupcc.analysis.neighbours import find_neighbours
from groupcc.analysis.stabilizers import KINDS
from groupcc.analysis.tables import write_rows
from groupcc.errors import argument_error

if TYPE_CHECKING:
    from groupcc.models import GroupCrosscoder

__all__ = ["Comparison", "FamilyPair", "compare_atlases"]

SAME_PLACE = ("model", "layer")
"""What of two crosscoders' provenance must agree for their decoders to write into one space."""


@dataclass(frozen=True)
class FamilyPair:
    """A family of the first atlas (`a`), of the second (`b`), or one of each that have the same shape.

    `similarity`: max_h cos(d_i, R_h d_j) of the two members most alike. Family, size, stabilizer (that of its
    reference) and kind are None on the side that lacks it, as is `similarity` then.
    """

    family_a: int | None
    family_b: int | None
    similarity: float | None
    size_a: int | None
    size_b: int | None
    stabilizer_a: str | None
    stabilizer_b: str | None
    kind_a: str | None
    kind_b: str | None

    @property
    def change(self) -> str:
        """What became of it: "appeared", "vanished", "changed" (another stabilizer) or "kept"."""
        if self.family_a is None:
            return "appeared"
        if self.family_b is None:
            return "vanished"
        return "kept" if self.stabilizer_a == self.stabilizer_b else "changed"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_atlases` found.

    - `basis`: "decoders", where families were matched; "counts", where only numbers are compared, and then `reason`
      says why.
    - `kinds`: for every kind of symmetry how many latents of a and of b have it, `(a, b)`.
    - `families`: a [`FamilyPair`][groupcc.analysis.FamilyPair] for every family of either, most alike first, then
      those that vanished, then those that appeared, each by size; empty where `basis` is "counts".
    - `threshold`: least similarity of a match.
    """

    basis: Literal["decoders", "counts"]
    reason: str | None
    kinds: dict[str, tuple[int, int]]
    n_families: tuple[int, int]
    families: list[FamilyPair]
    threshold: float

    @property
    def counts(self) -> dict[str, int]:
        """How many families were kept, changed, vanished and appeared."""
        found = Counter(pair.change for pair in self.families)
        return {change: found[change] for change in ("kept", "changed", "vanished", "appeared")}

    def table(self) -> list[dict[str, Any]]:
        """One row a pair, plain values."""
        return [{"change": pair.change, **asdict(pair)} for pair in self.families]

    def write_table(self, path: str | Path) -> Path:
        """Writes `table()` as .csv or .json, by the suffix, in one rename."""
        return write_rows(path, self.table(), ["change", *FamilyPair.__dataclass_fields__])

    def summary(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The comparison in lines for a terminal."""
        width = max(len(name) for name in (*names, "12,345"))
        lines = [f"{'latents by kind':<26}{names[0]:>{width + 2}}{names[1]:>{width + 2}}"]
        rows = [*self.kinds.items(), ("families", self.n_families)]
        lines += [f"{name:<26}{a:>{width + 2},}{b:>{width + 2},}" for name, (a, b) in rows if a or b]
        if self.basis == "counts":
            return "\n".join([*lines, f"Families were not matched: {self.reason}"])
        counts = self.counts
        lines.append(
            f"Families matched by their decoders (similarity {self.threshold:g} or more): "
            + ", ".join(f"{n} {change}" for change, n in counts.items())
        )
        changed = [pair for pair in self.families if pair.change == "changed"]
        lines += [
            f"  family {p.family_a} ({p.stabilizer_a}, size {p.size_a}) is now "
            f"{p.family_b} ({p.stabilizer_b}, size {p.size_b}), similarity {p.similarity:.2f}"
            for p in changed
        ]
        return "\n".join(lines)


def compare_atlases(
    a: Atlas,
    b: Atlas,
    crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None = None,
    *,
    threshold: float = FAMILY_THRESHOLD,
) -> Comparison:
    """Compares two atlases: two checkpoints of one layer, untied with tied, or two layers.

    Families of one layer are matched by their decoders, for which the crosscoders that the atlases were made from are
    needed: two families are as alike as their two most similar members, max_h cos(d_i, R_h d_j), and families are
    paired one to one so that the sum of their similarities is largest, none below `threshold`. Decoders of different
    layers or widths write into different spaces, and two groups give blocks that do not correspond: then, and without
    crosscoders, only counts are compared, and `Comparison.reason` says so. The layers are taken for the same where
    both crosscoders have the same `model` and `layer` in their `provenance`, or where one has none.

    Memory: one more copy of both decoders and a matrix families of a × families of b. Deterministic on the CPU.
    ArgumentError for crosscoders that are not those of the atlases (other sizes or group); a threshold not in (0, 1].
    """
    if not 0 < threshold <= 1:
        remedy = "Leave it out for that of families."
        raise argument_error("threshold", expected="a number in (0, 1]", got=threshold, remedy=remedy)
    for atlas, crosscoder, name in zip((a, b), crosscoders or (), "ab", strict=False):
        if (atlas.config.group, *_shape(atlas)) != (crosscoder.config.group, *_shape(crosscoder)):
            raise argument_error(
                "crosscoders",
                expected=f"the one that atlas {name} was made from, {_shape(atlas)} under {atlas.config.group}",
                got=f"{_shape(crosscoder)} under {crosscoder.config.group}",
                remedy="Give both in the order of the atlases.",
            )
    kinds = {kind: (a.kind_counts[kind], b.kind_counts[kind]) for kind in KINDS}
    reason = _incomparable(a, b, crosscoders)
    pairs = [] if reason or crosscoders is None else _match(a, b, crosscoders, threshold)
    return Comparison(
        basis="counts" if reason else "decoders",
        reason=reason,
        kinds=kinds,
        n_families=(len(a.families), len(b.families)),
        families=pairs,
        threshold=threshold,
    )


def _shape(owner: Any) -> tuple[int, int]:
    return owner.config.n_latents, owner.config.d_in


def _incomparable(a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None) -> str | None:
    """Why decoders can't be compared, if so."""
    if a.group != b.group:
        return f"the groups differ, {a.group.name} and {b.group.name}."
    if crosscoders is None:
        return "the crosscoders were not given, and an atlas does not hold their decoders."
    for key in SAME_PLACE:
        places = [crosscoder.provenance.get(key) for crosscoder in crosscoders]
        if None not in places and places[0] != places[1]:
            return (
                f"the decoders are of different {key}s, {places[0]} and {places[1]}, and write into different spaces."
            )
    if a.d_in != b.d_in:
        return f"the layers differ in width, {a.d_in} and {b.d_in}."
    return None


@torch.no_grad()
def _match(
    a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder], threshold: float
) -> list[FamilyPair]:
    from scipy.optimize import linear_sum_assignment

    W_dec_LGD = torch.cat([crosscoder.W_dec.detach().float().cpu() for crosscoder in crosscoders])
    dead = torch.cat([atlas.families.labels < 0 for atlas in (a, b)])
    graph = find_neighbours(W_dec_LGD, a.group, floor=threshold, dead=dead)
    rows, others = graph.rows(), graph.neighbours.astype(np.int64)
    across = (rows < a.n_latents) & (others >= a.n_latents)
    best = np.zeros((len(a.families), len(b.families)), dtype=np.float32)
    place = (a.families.labels.numpy()[rows[across]], b.families.labels.numpy()[others[across] - a.n_latents])
    np.maximum.at(best, place, graph.similarity[across])
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(best, maximize=True), strict=True) if best[i, j]]
    matched = [_pair(a, b, i, j, min(1.0, float(best[i, j]))) for i, j in pairs]
    matched.sort(key=lambda pair: (-pair.similarity, pair.family_a))  # type: ignore[operator]
    kept_a, kept_b = {i for i, _ in pairs}, {j for _, j in pairs}
    # Families are numbered from the largest.
    vanished = [_pair(a, b, i, None, None) for i in range(len(a.families)) if i not in kept_a]
    return matched + vanished + [_pair(a, b, None, j, None) for j in range(len(b.families)) if j not in kept_b]


def _pair(a: Atlas, b: Atlas, i: int | None, j: int | None, similarity: float | None) -> FamilyPair:
    (size_a, name_a, kind_a), (size_b, name_b, kind_b) = _family(a, i), _family(b, j)
    return FamilyPair(
        family_a=i,
        family_b=j,
        similarity=None if similarity is None else round(similarity, 5),
        size_a=size_a,
        size_b=size_b,
        stabilizer_a=name_a,
        stabilizer_b=name_b,
        kind_a=kind_a,
        kind_b=kind_b,
    )


def _family(atlas: Atlas, family: int | None) -> tuple[int | None, str | None, str | None]:
    if family is None:
        return None, None, None
    stabilizer = atlas.stabilizers[atlas.families.references[family]]
    return atlas.families.sizes[family], stabilizer.name, stabilizer.kind
