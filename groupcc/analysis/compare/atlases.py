"""Two atlases side by side: which families appear, vanish, or change their symmetry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.compare.firing import FEWEST_PLACES, Likeness, compare_firing, family_firing, most_places
from groupcc.analysis.compare.shared_places import SharedPlaces, shared_places
from groupcc.analysis.families.families import FAMILY_THRESHOLD
from groupcc.analysis.families.neighbours import find_neighbours
from groupcc.analysis.rows import write_rows
from groupcc.analysis.symmetry.stabilizers import KINDS
from groupcc.data import Orbits, as_orbits
from groupcc.errors import argument_error, check_choice

if TYPE_CHECKING:
    from groupcc.models import GroupCrosscoder

__all__ = ["COMPARISON_BASES", "Comparison", "FamilyPair", "compare_atlases", "decoder_likeness"]

COMPARISON_BASES = ("auto", "decoders", "activations")
"""What families can be matched by; "auto" takes the decoders where these can be compared."""

FEWEST_SHARED = 100
"""Places that two stores must share for families to be compared by what they fire for."""

FIRING = ("places_a", "places_b", "nearest")
"""What is known of a pair by activations alone."""

MOST_LINES = 12
"""Changed families that the summary lists; those in doubt it counts."""

KIND_WORDS = {
    "invariant": "the same at every angle",
    "90": "repeats every 90°",
    "180": "repeats every 180°",
    "other-rotation": "repeats at another angle",
    "mirror": "one mirror line",
    "none": "no mirror line",
    "dead": "never active",
}
"""`KINDS` in the summary's first column."""

SAME_PLACE = ("model", "layer")
"""What of two crosscoders' provenance must agree for their decoders to write into one space."""


@dataclass(frozen=True)
class FamilyPair:
    """A family of the first atlas (`a`), of the second (`b`), or one of each that have the same shape.

    `similarity`: by the decoders max_h cos(d_i, R_h d_j) of the two members most alike; by activations the correlation
    that [`compare_atlases`][groupcc.compare_atlases] defines. Family, size, stabilizer (that of its reference) and kind
    are None on the side that lacks it. `doubt_a`, `doubt_b`: why its stabilizer is unclear, where the atlas has
    evidence and says so; a change between two of which one is in doubt may be none. By activations also

    - `places_a`, `places_b`: at how many of the places compared each fires.
    - `nearest`: of a family without a partner, the family of the other atlas that it is more like than any of its own
      atlas, and that is itself more like another one; `similarity` is then that with it.
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
        """What became of it: "appeared", "vanished", "changed" (another stabilizer), "kept"; or "unclear", where it has
        a `nearest` (it may be split, merged or gone) or fires at fewer than 10 places."""
        if self.family_a is not None and self.family_b is not None:
            return "kept" if self.stabilizer_a == self.stabilizer_b else "changed"
        places = self.places_b if self.family_a is None else self.places_a
        if self.nearest is not None or (places is not None and places < FEWEST_PLACES):
            return "unclear"
        return "appeared" if self.family_a is None else "vanished"


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare_atlases` found.

    - `basis`: "decoders" or "activations", what families were matched by; "counts", where only numbers are compared.
    - `reason`: why not by the decoders, and where only numbers are compared, why not by activations either; else None.
    - `kinds`: for every kind of symmetry how many latents of a and of b have it, `(a, b)`.
    - `families`: a [`FamilyPair`][groupcc.analysis.FamilyPair] for every family of either: those matched, most alike
      first, then the unclear ones, those that vanished and those that appeared, each by size; empty where `basis` is
      "counts".
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
        found = Counter(pair.change for pair in self.families)
        unclear = ("unclear",) if self.basis == "activations" else ()
        return {change: found[change] for change in ("kept", "changed", "vanished", "appeared", *unclear)}

    def table(self) -> list[dict[str, Any]]:
        """One row a pair, plain values."""
        return [{name: getattr(pair, name) for name in self._columns()} for pair in self.families]

    def write_table(self, path: str | Path) -> Path:
        """Writes `table()` as .csv or .json, by the suffix, in one rename."""
        return write_rows(path, self.table(), self._columns())

    def _columns(self) -> list[str]:
        fields = [name for name in FamilyPair.__dataclass_fields__ if self.basis == "activations" or name not in FIRING]
        return ["change", *fields]

    def summary(self, names: tuple[str, str] = ("A", "B")) -> str:
        """The comparison in lines for a terminal."""
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


def compare_atlases(
    a: Atlas,
    b: Atlas,
    crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None = None,
    *,
    orbits: tuple[Any, Any] | None = None,
    basis: Literal["auto", "decoders", "activations"] = "auto",
    threshold: float | None = None,
    progress: bool = False,
) -> Comparison:
    """Compares two atlases: two checkpoints of one layer, untied with tied, or two layers. Of one group.

    Families of one layer are matched by their decoders, for which the crosscoders that the atlases were made from are
    needed: two families are as alike as their two most similar members, max_h cos(d_i, R_h d_j), and families are
    paired one to one so that the sum of their similarities is largest, none below `threshold` (default 0.75, that of
    families). Layers are taken for the same where both crosscoders have the same `model` and `layer` in their
    `provenance`, or where one has none.

    Decoders of different layers or widths write into different spaces. There families are matched by what they fire
    for, which takes `orbits` of both, stores (or tensors [M, G, D], example by example) of the same images: how
    strongly each family's shape is found in each pose at each place that both stores have (`shared_places`) is
    correlated over places and transforms, the best over the group (`family_firing`, `compare_firing`). A match is two
    families that are each other's nearest of all and at least `threshold` alike (default: calibrated on wrong
    pairings of the places, so that at most one match in twenty is expected to be chance). Different shapes that occur
    together are alike too: the largest sum, as decoders are matched by, would give a family that vanished to whatever
    is left. Without a partner, a family that is more like one of the other dictionary than like any of its own is
    unclear: split, merged or gone.

    Otherwise only counts are compared, and `Comparison.reason` says why and what would mend it. `basis` takes one of
    the two by name, or raises. `progress` shows a bar.

    Memory: by decoders one more copy of both and a matrix families of a × families of b; by activations 3 GiB at most,
    at up to 65,536 / |G| places. Deterministic on the CPU. ArgumentError for crosscoders or orbits that are not those
    of the atlases (other sizes, group or layer), a threshold not in (0, 1], or a basis that can't be had.
    """
    if threshold is not None and not 0 < threshold <= 1:
        remedy = "Leave it out for the default."
        raise argument_error("threshold", expected="a number in (0, 1]", got=threshold, remedy=remedy)
    check_choice("basis", basis, COMPARISON_BASES, "Leave it out for what can be had.")
    for atlas, crosscoder, name in zip((a, b), crosscoders or (), "ab", strict=False):
        if (atlas.config.group, *_shape(atlas)) != (crosscoder.config.group, *_shape(crosscoder)):
            raise argument_error(
                "crosscoders",
                expected=f"the one that atlas {name} was made from, {_shape(atlas)} under {atlas.config.group}",
                got=f"{_shape(crosscoder)} under {crosscoder.config.group}",
                remedy="Give both in the order of the atlases.",
            )
    kinds = {kind: (a.kind_counts[kind], b.kind_counts[kind]) for kind in KINDS}
    n_families = (len(a.families), len(b.families))
    of_decoders = FAMILY_THRESHOLD if threshold is None else threshold
    reason = _incomparable(a, b, crosscoders)
    if basis != "activations" and reason is None and crosscoders is not None:
        pairs = _match(a, b, crosscoders, of_decoders)
        return Comparison("decoders", None, kinds, n_families, pairs, of_decoders)
    if basis == "decoders":
        remedy = "Leave it out for what can be had."
        raise argument_error("basis", expected="decoders that can be compared", got=str(reason), remedy=remedy)
    places = _places(a, b, crosscoders, orbits)
    if isinstance(places, str) or crosscoders is None:
        lacking = str(places)
        if basis == "activations":
            remedy = "Leave basis out for what can be had."
            raise argument_error("basis", expected="activations of both", got=lacking, remedy=remedy)
        reason = lacking if reason is None or lacking == reason else f"{reason} {lacking}"
        return Comparison("counts", reason, kinds, n_families, [], of_decoders)
    shared, stores = places
    sides = zip((a, b), crosscoders, stores, (shared.a, shared.b), strict=True)
    firing = [family_firing(*side, progress=progress) for side in sides]
    likeness = compare_firing(firing[0], firing[1], a.group)
    least = likeness.threshold if threshold is None else threshold
    pairs = _match_firing(a, b, likeness, least)
    return Comparison(
        "activations", reason, kinds, n_families, pairs, least, places=len(shared.a), images=shared.images
    )


def _shape(owner: Any) -> tuple[int, int]:
    return owner.config.n_latents, owner.config.d_in


def _incomparable(a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None) -> str | None:
    """Why decoders can't be compared, if so."""
    if a.group != b.group:
        return f"the groups differ, {a.group.name} and {b.group.name}. Run both under one group."
    if crosscoders is None:
        return "the crosscoders were not given, and an atlas does not hold their decoders. Give the runs' directories."
    for key in SAME_PLACE:
        places = [crosscoder.provenance.get(key) for crosscoder in crosscoders]
        if None not in places and places[0] != places[1]:
            return (
                f"the decoders are of different {key}s, {places[0]} and {places[1]}, and write into different spaces."
            )
    if a.d_in != b.d_in:
        return f"the layers differ in width, {a.d_in} and {b.d_in}."
    return None


def _places(
    a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None, orbits: tuple[Any, Any] | None
) -> tuple[SharedPlaces, list[Orbits]] | str:
    """Where families can be compared by what they fire for, and the orbits there; or why nowhere."""
    if a.group != b.group or crosscoders is None:
        return str(_incomparable(a, b, crosscoders))
    if orbits is None:
        return (
            "To match families by what they fire for, give the orbits of both: orbits=(store_a, store_b), or "
            "--orbits DIR_A DIR_B."
        )
    stores: list[Orbits] = []
    for atlas, crosscoder, given in zip((a, b), crosscoders, orbits, strict=True):
        stores.append(as_orbits(given, atlas.group.order, atlas.d_in))
        layers = crosscoder.provenance.get("layer"), getattr(given, "layer", None)
        if None not in layers and layers[0] != layers[1]:
            remedy = "Give both in the order of the atlases."
            raise argument_error("orbits", expected=f"those of layer {layers[0]}", got=str(layers[1]), remedy=remedy)
    shared = shared_places(stores[0], stores[1], most_places(a.group, len(a.families) + len(b.families)))
    if len(shared.a) >= FEWEST_SHARED:
        return shared, stores
    different = f" ({shared.different} of these look different)" if shared.different else ""
    return (
        f"The orbits of both have {len(shared.a)} places of the same images, and it takes {FEWEST_SHARED}; "
        f"{shared.same_name} images have the same name in both{different}. Harvest both layers from the same images, "
        "from more of them, or with --positions all."
    )


@torch.no_grad()
def decoder_likeness(
    a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder], floor: float
) -> npt.NDArray[np.float32]:
    """max_h cos(d_i, R_h d_j) of the two members most alike, of every family of a with every one of b; 0 below
    `floor`. [families of a, families of b]."""
    W_dec_LGD = torch.cat([crosscoder.W_dec.detach().float().cpu() for crosscoder in crosscoders])
    dead = torch.cat([atlas.families.labels < 0 for atlas in (a, b)])
    graph = find_neighbours(W_dec_LGD, a.group, floor=floor, dead=dead)
    rows, others = graph.rows(), graph.neighbours.astype(np.int64)
    across = (rows < a.n_latents) & (others >= a.n_latents)
    best = np.zeros((len(a.families), len(b.families)), dtype=np.float32)
    place = (a.families.labels.numpy()[rows[across]], b.families.labels.numpy()[others[across] - a.n_latents])
    np.maximum.at(best, place, graph.similarity[across])
    return best


def _match(
    a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder], threshold: float
) -> list[FamilyPair]:
    from scipy.optimize import linear_sum_assignment

    best = decoder_likeness(a, b, crosscoders, threshold)
    pairs = [(int(i), int(j)) for i, j in zip(*linear_sum_assignment(best, maximize=True), strict=True) if best[i, j]]
    return _pairs(a, b, [(i, j, float(best[i, j])) for i, j in pairs])


def _match_firing(a: Atlas, b: Atlas, likeness: Likeness, threshold: float) -> list[FamilyPair]:
    """Each other's nearest; of the others, what they are nearest to is noted where it is near enough."""
    best = likeness.similarity
    nearest_a, nearest_b = likeness.nearest(threshold)
    told = []
    for pair in _pairs(a, b, [(i, j, float(best[i, j])) for i, j in likeness.matches(threshold)]):
        i, j = pair.family_a, pair.family_b
        places = None if i is None else likeness.places_a[i], None if j is None else likeness.places_b[j]
        near = nearest_a[i] if i is not None and j is None else nearest_b[j] if j is not None and i is None else None
        similarity = pair.similarity
        if near is not None:
            similarity = round(min(1.0, float(best[near, j] if i is None else best[i, near])), 5)
        told.append(replace(pair, similarity=similarity, places_a=places[0], places_b=places[1], nearest=near))
    order = ("kept", "unclear", "vanished", "appeared")
    return sorted(told, key=lambda pair: order.index("kept" if pair.change == "changed" else pair.change))


def _pairs(a: Atlas, b: Atlas, matched: list[tuple[int, int, float]]) -> list[FamilyPair]:
    """A pair for each family: those matched, most alike first, then the rest of a and of b, which are numbered from the
    largest."""
    matched = sorted(matched, key=lambda match: (-match[2], match[0]))
    kept_a, kept_b = {i for i, _, _ in matched}, {j for _, j, _ in matched}
    return [
        *(_pair(a, b, i, j, min(1.0, similarity)) for i, j, similarity in matched),
        *(_pair(a, b, i, None, None) for i in range(len(a.families)) if i not in kept_a),
        *(_pair(a, b, None, j, None) for j in range(len(b.families)) if j not in kept_b),
    ]


def _pair(a: Atlas, b: Atlas, i: int | None, j: int | None, similarity: float | None) -> FamilyPair:
    (size_a, name_a, kind_a, doubt_a), (size_b, name_b, kind_b, doubt_b) = _family(a, i), _family(b, j)
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
        doubt_a=doubt_a,
        doubt_b=doubt_b,
    )


def _family(atlas: Atlas, family: int | None) -> tuple[int | None, str | None, str | None, str | None]:
    if family is None:
        return None, None, None, None
    reference = atlas.families.references[family]
    stabilizer = atlas.stabilizers[reference]
    doubt = None if atlas.evidence is None else atlas.evidence.unclear[reference]
    return atlas.families.sizes[family], stabilizer.name, stabilizer.kind, doubt
