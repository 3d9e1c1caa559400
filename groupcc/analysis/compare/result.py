"""What a comparison of two atlases found, family by family, and in lines for a terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from groupcc.analysis.compare.firing import FEWEST_PLACES
from groupcc.analysis.rows import write_rows

__all__ = ["KIND_WORDS", "Comparison", "FamilyPair"]

FIRING = ("places_a", "places_b", "nearest")
"""Fields that only a comparison by activations has."""

MOST_LINES = 12
"""Changed families that the summary lists. Those in doubt are only counted."""

KIND_WORDS = {
    "invariant": "the same at every angle",
    "90": "repeats every 90°",
    "180": "repeats every 180°",
    "other-rotation": "repeats at another angle",
    "mirror": "one mirror line",
    "none": "no mirror line",
    "undecided": "undecided",
    "dead": "never active",
}
"""Words for `KINDS` in the summary's first column."""


@dataclass(frozen=True)
class FamilyPair:
    """A family of the first atlas (`a`), of the second (`b`), or one of each that have the same shape.

    Family, size, stabilizer (that of its reference) and kind are None on the side that lacks the family. `similarity`:
    by the decoders max_h cos(d_i, R_h d_j) of the two members most alike; by activations the correlation that
    [`compare_atlases`][groupcc.compare_atlases] defines. `doubt_a`, `doubt_b`: why the stabilizer is unclear, if the
    atlas has evidence and says so. If one of two stabilizers is in doubt, a change between them may be none.

    A comparison by activations also has

    - `places_a`, `places_b`: the number of places at which each family fires.
    - `nearest`: for a family X without a partner, a family Y of the other atlas that X is more like than any family of
      its own atlas, if Y is more like another one. `similarity` is then that of X and Y.
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
    doubt_a: str | None = None
    doubt_b: str | None = None
    places_a: int | None = None
    places_b: int | None = None
    nearest: int | None = None

    @property
    def change(self) -> str:
        """What became of the family: "appeared", "vanished", "changed" (another stabilizer) or "kept". It is "unclear"
        if it has a `nearest` (it may be split, merged or gone) or fires at fewer than 10 places."""
        if self.family_a is not None and self.family_b is not None:
            return "kept" if self.stabilizer_a == self.stabilizer_b else "changed"
        places = self.places_b if self.family_a is None else self.places_a
        if self.nearest is not None or (places is not None and places < FEWEST_PLACES):
            return "unclear"
        return "appeared" if self.family_a is None else "vanished"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_atlases` returns.

    - `basis`: what families were matched by, "decoders" or "activations"; "counts" if only numbers are compared.
    - `reason`: why families were not matched by the decoders, and why not by activations if only numbers are compared;
      else None.
    - `kinds`: for every kind of symmetry how many latents of a and of b have it, `(a, b)`. `n_families`: likewise.
    - `families`: a [`FamilyPair`][groupcc.analysis.FamilyPair] for every family of either atlas: the matched ones, most
      alike first; then unclear, vanished and appeared families, each by size. Empty if `basis` is "counts".
    - `threshold`: least similarity of a match. `places`, `images`: how many were compared, by activations; else None.
    """

    basis: Literal["decoders", "activations", "counts"]
    reason: str | None
    kinds: dict[str, tuple[int, int]]
    n_families: tuple[int, int]
    families: list[FamilyPair]
    threshold: float
    places: int | None = None
    images: int | None = None

    @property
    def counts(self) -> dict[str, int]:
        """How many families were kept, changed, vanished and appeared; by activations also how many are unclear."""
        counts = Counter(pair.change for pair in self.families)
        unclear = ("unclear",) if self.basis == "activations" else ()
        return {change: counts[change] for change in ("kept", "changed", "vanished", "appeared", *unclear)}

    def table(self) -> list[dict[str, Any]]:
        """Returns one row a pair, plain values."""
        return [{name: getattr(pair, name) for name in self._columns()} for pair in self.families]

    def write_table(self, path: str | Path) -> Path:
        """Writes `table()` as .csv or .json, by the suffix, in one rename."""
        return write_rows(path, self.table(), self._columns())

    def _columns(self) -> list[str]:
        fields = [name for name in FamilyPair.__dataclass_fields__ if self.basis == "activations" or name not in FIRING]
        return ["change", *fields]

    def summary(self, names: tuple[str, str] = ("A", "B")) -> str:
        """Returns the comparison in lines for a terminal."""
        width = max(len(name) for name in (*names, "12,345"))
        lines = [f"{'latents by kind':<26}{names[0]:>{width + 2}}{names[1]:>{width + 2}}"]
        rows = [*((KIND_WORDS[kind], counts) for kind, counts in self.kinds.items()), ("families", self.n_families)]
        lines += [f"{name:<26}{a:>{width + 2},}{b:>{width + 2},}" for name, (a, b) in rows if a or b]
        if self.basis == "counts":
            return "\n".join([*lines, f"Families were not matched: {self.reason}"])
        how = "their decoders (similarity"
        if self.basis == "activations":
            if self.reason:
                lines.append(f"Not by the decoders: {self.reason}")
            how = f"what they fire for at {self.places:,} places of {self.images:,} images (correlation"
        counts = self.counts
        lines.append(
            f"Families matched by {how} {self.threshold:.3g} or more): "
            + ", ".join(f"{n} {change}" for change, n in counts.items())
        )
        changed = [pair for pair in self.families if pair.change == "changed"]
        clear = [pair for pair in changed if pair.doubt_a is None and pair.doubt_b is None]
        if len(clear) < len(changed):
            lines.append(f"Of the {len(changed)} changed, a stabilizer is in doubt in {len(changed) - len(clear)}.")
        lines += [
            f"  family {p.family_a} ({p.stabilizer_a}, size {p.size_a}) is now "
            f"{p.family_b} ({p.stabilizer_b}, size {p.size_b}), similarity {p.similarity:.2f}"
            for p in clear[:MOST_LINES]
        ]
        if len(clear) > MOST_LINES:
            lines.append(f"  and {len(clear) - MOST_LINES} more; the table (--out, write_table) has every family")
        if counts.get("unclear"):
            lines.append(
                "Unclear: families like one of the other side that is more like another (split, merged or gone), and "
                f"those that fire at fewer than {FEWEST_PLACES} of the places."
            )
        return "\n".join(lines)
