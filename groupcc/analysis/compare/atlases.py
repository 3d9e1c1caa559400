"""Two atlases side by side: which families appear, vanish, or change their symmetry."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.compare.firing import Likeness, compare_firing, family_firing, most_places
from groupcc.analysis.compare.result import Comparison, FamilyPair
from groupcc.analysis.compare.shared_places import SharedPlaces, shared_places
from groupcc.analysis.families.neighbours import find_neighbours
from groupcc.analysis.options import FAMILY_THRESHOLD
from groupcc.analysis.symmetry.stabilizers import KINDS
from groupcc.data import Orbits, as_orbits
from groupcc.errors import argument_error, check_choice
from groupcc.models import GroupCrosscoder

__all__ = ["COMPARISON_BASES", "compare_atlases", "decoder_likeness"]

COMPARISON_BASES = ("auto", "decoders", "activations")
"""What families can be matched by; "auto" takes the decoders if these can be compared."""

FEWEST_SHARED = 100
"""Places that two stores must share for families to be compared by what they fire for."""

SAME_PLACE = ("model", "layer")
"""Keys of two crosscoders' provenance that must agree if their decoders are to write into one space."""


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
    """Compares two atlases of one group: two checkpoints of one layer, untied with tied, or two layers.

    **By the decoders**, if both are of one layer. That takes the crosscoders from which the atlases were made. Two
    families are as alike as their two most similar members, max_h cos(d_i, R_h d_j). They are paired one to one so that
    the sum of similarities is largest, none below `threshold` (default 0.75, that of families). Two layers are taken
    for one if both crosscoders have the same `model` and `layer` in their `provenance`, or if one has none.

    **By activations**, if they are of different layers or widths, whose decoders write into different spaces. That
    takes `orbits` of both, stores (or tensors [M, G, D], example by example) of the same images. How strongly each
    family's shape is found in each pose is correlated over transforms and over the places that both stores have
    (`shared_places`), the best over the group (`family_firing`, `compare_firing`). Two families match if each is the
    other's nearest and their correlation is at least `threshold`. The default is calibrated on wrong pairings of the
    places, so that at most one match in twenty is expected to be chance. The largest sum would not do here: different
    shapes that occur together are alike too, so a family that vanished would be paired with whatever is left. A family
    without a partner is unclear (split, merged or gone) if it is more like one of the other dictionary than like any of
    its own.

    Otherwise only counts are compared, and `Comparison.reason` says why and what would mend it. `basis` takes one of
    the two by name, or raises. `progress` shows a bar.

    Memory: by decoders one more copy of both and a matrix families of a × families of b; by activations 3 GiB at most,
    at up to 65,536 / |G| places. Deterministic on the CPU.

    Raises:
        ArgumentError: crosscoders or orbits that are not those of the atlases (other sizes, group or layer), a
            threshold not in (0, 1], or a basis that can't be had.
    """
    if threshold is not None and not 0 < threshold <= 1:
        remedy = "Leave it out for the default."
        raise argument_error("threshold", expected="a number in (0, 1]", got=threshold, remedy=remedy)
    check_choice("basis", basis, COMPARISON_BASES, "Leave it out for what can be had.")
    for atlas, crosscoder, name in zip((a, b), crosscoders or (), "ab", strict=False):
        _check_pair(atlas, crosscoder, name)
    kinds = {kind: (a.kind_counts[kind], b.kind_counts[kind]) for kind in KINDS}
    counts = kinds, (len(a.families), len(b.families))
    of_decoders = FAMILY_THRESHOLD if threshold is None else threshold
    reason = _incomparable(a, b, crosscoders)
    if basis != "activations" and reason is None and crosscoders is not None:
        return Comparison("decoders", None, *counts, _match(a, b, crosscoders, of_decoders), of_decoders)
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
        return Comparison("counts", reason, *counts, [], of_decoders)
    shared, stores = places
    sides = zip((a, b), crosscoders, stores, (shared.a, shared.b), strict=True)
    firing = [family_firing(*side, progress=progress) for side in sides]
    likeness = compare_firing(firing[0], firing[1], a.group)
    least = likeness.threshold if threshold is None else threshold
    pairs = _match_firing(a, b, likeness, least)
    return Comparison("activations", reason, *counts, pairs, least, places=len(shared.a), images=shared.images)


def _check_pair(atlas: Atlas, crosscoder: GroupCrosscoder, name: str) -> None:
    if (atlas.config.group, *_shape(atlas)) != (crosscoder.config.group, *_shape(crosscoder)):
        raise argument_error(
            "crosscoders",
            expected=f"the one that atlas {name} was made from, {_shape(atlas)} under {atlas.config.group}",
            got=f"{_shape(crosscoder)} under {crosscoder.config.group}",
            remedy="Give both in the order of the atlases.",
        )


def _shape(owner: Atlas | GroupCrosscoder) -> tuple[int, int]:
    return owner.config.n_latents, owner.config.d_in


def _incomparable(a: Atlas, b: Atlas, crosscoders: tuple[GroupCrosscoder, GroupCrosscoder] | None) -> str | None:
    """Returns why decoders can't be compared, None if they can."""
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
    """Returns the places at which families can be compared by what they fire for, and the orbits; or why there are
    none."""
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
        layers = crosscoder.provenance.get("layer"), stores[-1].layer
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
    """Returns max_h cos(d_i, R_h d_j) of the two members most alike, for every family of a and every family of b; 0
    below `floor`. [families of a, families of b]."""
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
    """Returns pairs of families that are each other's nearest, and for each other family its `nearest`, if it is near
    enough."""
    best = likeness.similarity
    nearest_a, nearest_b = likeness.nearest(threshold)
    pairs = []
    for pair in _pairs(a, b, [(i, j, float(best[i, j])) for i, j in likeness.matches(threshold)]):
        i, j = pair.family_a, pair.family_b
        places = None if i is None else likeness.places_a[i], None if j is None else likeness.places_b[j]
        near = nearest_a[i] if i is not None and j is None else nearest_b[j] if j is not None and i is None else None
        similarity = pair.similarity
        if near is not None:
            similarity = round(min(1.0, float(best[near, j] if i is None else best[i, near])), 5)
        pairs.append(replace(pair, similarity=similarity, places_a=places[0], places_b=places[1], nearest=near))
    order = ("kept", "unclear", "vanished", "appeared")
    return sorted(pairs, key=lambda pair: order.index("kept" if pair.change == "changed" else pair.change))


def _pairs(a: Atlas, b: Atlas, matched: list[tuple[int, int, float]]) -> list[FamilyPair]:
    """Returns a pair for each family: those matched, most alike first, then the others of a and of b by size."""
    matched = sorted(matched, key=lambda match: (-match[2], match[0]))
    kept_a, kept_b = {i for i, _, _ in matched}, {j for _, j, _ in matched}
    return [
        *(_pair(a, b, i, j, min(1.0, similarity)) for i, j, similarity in matched),
        *(_pair(a, b, i, None, None) for i in range(len(a.families)) if i not in kept_a),
        *(_pair(a, b, None, j, None) for j in range(len(b.families)) if j not in kept_b),
    ]


def _pair(a: Atlas, b: Atlas, i: int | None, j: int | None, similarity: float | None) -> FamilyPair:
    similarity = None if similarity is None else round(similarity, 5)
    of_a = {f"{name}_a": value for name, value in _family(a, i).items()}
    of_b = {f"{name}_b": value for name, value in _family(b, j).items()}
    return FamilyPair(i, j, similarity, **of_a, **of_b)


def _family(atlas: Atlas, family: int | None) -> dict[str, Any]:
    """Returns what a pair says of one of its families, None throughout if it has none."""
    if family is None:
        return dict.fromkeys(("size", "stabilizer", "kind", "doubt"))
    reference = atlas.families.references[family]
    stabilizer = atlas.stabilizers[reference]
    doubt = None if atlas.evidence is None else atlas.stabilizers[reference].reason or None
    size = atlas.families.sizes[family]
    return {"size": size, "stabilizer": stabilizer.name, "kind": stabilizer.kind, "doubt": doubt}
