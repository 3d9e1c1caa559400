"""What the templates show: an atlas as plain values, one object for each thing on the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from groupcc.groups import Group
from groupcc.groups.algebra import format_degrees
from groupcc.report.dials import DialView, dial_view
from groupcc.report.notes import differing, estimates, family_notes, latent_notes
from groupcc.analysis.numbers import array, number, percent, two_decimals
from groupcc.report.pictures import Patch, PatchBook, element_words, heat_map, telling_elements
from groupcc.report.svg import dial, dial_cells, level, level_class, ring_figure
from groupcc.report.used import Used
from groupcc.report.visualized import Visualized
from groupcc.report.words import Kind, family_words, kind_of, pose_words, scaling_words, shape_hint, stabilizer_words

__all__ = ["FamilyView", "LatentView", "MemberView", "Reader", "Transformed", "power_by_frequency", "select_latents"]

FAINT = 0.15
"""Share of a latent's power that changes with the transform below which the page says that it is faint."""
FIRST_PATCHES = 3
"""Patches that show before a latent is opened."""

NARROW_MEMBERS = 7
"""Members up to which two family cards fit side by side."""


@dataclass(frozen=True)
class Transformed:
    """The strongest example under one element, with what the dictionary says of that element."""

    patch: Patch
    correlation: str
    swatch: str
    strength: str


@dataclass(frozen=True)
class Evidence:
    """One line of the evidence table: a transform, the autocorrelation there."""

    words: str
    value: str
    swatch: str


@dataclass(frozen=True)
class LatentView:
    """A latent's card."""

    latent: int
    kind: Kind
    hint: str
    sentence: str
    stabilizer: str
    score: str
    ring: Markup
    large_ring: Markup
    heat_map: str
    bars_label: str
    bars_words: str
    spectrum_label: str
    evidence: list[Evidence]
    first: list[Patch]
    more: list[Patch]
    transformed: list[Transformed]
    frequency: str
    mean_act: str
    modulation: str
    faint: bool
    family: int | None
    residual: str
    scaling: str
    dial: DialView | None
    atoms: int | None
    turned_back: list[Patch]
    unclear: bool
    visualized: Visualized | None
    estimates: list[tuple[str, str, bool]]
    differing: str
    notes: list[str | Markup]
    used: list[Used]


@dataclass(frozen=True)
class MemberView:
    """A latent as a member of its family."""

    latent: int
    pose: str
    mirrored: bool
    match: str
    patch: Patch | None
    turned_back: Patch | None
    ring: Markup


@dataclass(frozen=True)
class FamilyView:
    """A family's card."""

    family: int
    kind: Kind
    hint: str
    sentence: str
    dial: Markup | None
    dial_cells: Markup | None
    reference: int
    spectrum_label: str
    members: list[MemberView]
    left_out: int
    wide: bool
    notes: list[str]
    used: list[Used]


class Reader:
    """Reads one atlas (and the store behind it) into views."""

    def __init__(
        self,
        atlas: Any,
        patches: PatchBook,
        *,
        max_patches: int,
        visualized: dict[int, Visualized] | None = None,
        used: dict[int, list[Used]] | None = None,
    ) -> None:
        self.atlas = atlas
        self.group = atlas.group
        self.patches = patches
        self.max_patches = max_patches
        self.visualized = visualized or {}
        self.used = used or {}
        self.correlation = np.nan_to_num(array(atlas.autocorrelation).astype(np.float64))
        self.norms = np.nan_to_num(array(atlas.block_norms).astype(np.float64))
        self.stabilizers = list(atlas.stabilizers)
        self.kinds = [str(kind) for kind in atlas.kinds]
        self.tied = atlas.duplicates is not None
        self.residual_share = array(atlas.residual_share) if atlas.config.tied == "residual" else None
        self.found = atlas.duplicates if self.tied else atlas.families
        self.labels = array(self.found.labels).astype(np.int64)
        self.poses = array(self.found.poses).astype(np.int64)
        self.matches = array(self.found.similarity_to_reference).astype(np.float64)
        self.sizes = Counter(self.labels[self.labels >= 0].tolist())
        self.frequency = None if atlas.frequency is None else array(atlas.frequency).astype(np.float64)
        self.power = power_by_frequency(np.nan_to_num(array(atlas.spectrum).astype(np.float64)), self.group)
        self.table = atlas.table()
        self.mean_act = None if atlas.mean_act is None else array(atlas.mean_act).astype(np.float64)

        modulation = getattr(atlas, "modulation", None)
        self.modulation = None if modulation is None else array(modulation).astype(np.float64)

    def kind(self, latent: int) -> Kind:
        """The words for a latent's kind."""
        return kind_of(self.kinds[latent], self.group)

    def hint(self, latent: int) -> str:
        """What shape a latent most likely is."""
        name = str(self.stabilizers[latent].name)
        return shape_hint(self.kinds[latent], self.correlation[latent], self.group, name)

    def axes(self, latent: int) -> list[float]:
        """A latent's mirror lines in degrees; none where every mirroring leaves it the same."""
        stabilizer = self.stabilizers[latent]
        mask = array(stabilizer.mask).astype(bool)
        rotations = int((mask & ~self.group.reflections).sum())
        if stabilizer.axis is None or self.kinds[latent] in ("invariant", "dead") or rotations > 4:
            return []
        return [(float(stabilizer.axis) + 180 * k / rotations) % 180 for k in range(rotations)]

    def small_ring(self, latent: int) -> Markup:
        """A latent's ring as a thumbnail."""
        label = f"Ring of latent {latent}: {stabilizer_words(self.stabilizers[latent], self.group)}"
        return ring_figure(_ring_cells(latent), self.group, label)

    def latent(self, latent: int, linked_families: set[int], *, detailed: bool) -> LatentView:
        """A latent's card, with a link to its family where that is on the page; patches and block map if detailed."""
        stabilizer = self.stabilizers[latent]
        sentence = stabilizer_words(stabilizer, self.group)
        examples = self.patches.examples(latent, self.max_patches if detailed else 0)
        upright = [self.patches.upright(i, act) for i, act in examples]
        axes = self.axes(latent)
        norms = self.norms[latent]
        top, mean = float(norms.max(initial=0.0)), float(norms.mean()) if norms.size else 0.0
        spread = f"Weakest block {percent(norms.min() / top)} of the strongest." if top > 0 else "All blocks are zero."
        large = ring_figure(
            _ring_cells(latent),
            self.group,
            f"Autocorrelation of latent {latent} over the group. {sentence}",
            axes,
            large=True,
        )
        return LatentView(
            latent=latent,
            kind=self.kind(latent),
            hint=self.hint(latent),
            sentence=sentence,
            faint=self._faint(latent),
            stabilizer=str(stabilizer.label),
            score=two_decimals(float(stabilizer.score)) if int(array(stabilizer.mask).sum()) > 1 else "",
            ring=self.small_ring(latent),
            large_ring=large,
            heat_map=heat_map(array(self.atlas.similarity(latent))) if detailed else "",
            bars_label=f"Block norms of latent {latent}: mean {number(mean)}, largest {number(top)}",
            bars_words=spread,
            spectrum_label=self._spectrum_label(latent),
            evidence=self._evidence(latent, axes),
            first=upright[:FIRST_PATCHES],
            more=upright[FIRST_PATCHES:],
            transformed=self._transformed(latent, axes, examples),
            frequency="" if self.frequency is None else percent(self.frequency[latent]),
            mean_act="" if self.mean_act is None else number(self.mean_act[latent]),
            modulation="" if self.modulation is None else percent(self.modulation[latent]),
            family=int(self.labels[latent]) if int(self.labels[latent]) in linked_families else None,
            residual=percent(self.residual_share[latent]) if self.residual_share is not None else "",
            scaling="" if self.atlas.scaling is None else scaling_words(list(self.atlas.scaling.verdicts(latent))),
            dial=None if (dial := self.atlas.dial(latent)) is None else dial_view(latent, dial, self.group),
            atoms=int(self.atlas.families.atoms[latent]) if self.tied else None,
            turned_back=self._turned_back(latent, len(examples)),
            unclear=self.table[latent].get("unclear") is not None,
            visualized=self.visualized.get(latent),
            estimates=estimates(self.table[latent]),
            differing=differing(self.table[latent]),
            notes=latent_notes(self.table[latent]),
            used=self._used(latent, linked_families),
        )

    def _used(self, latent: int, linked_families: set[int]) -> list[Used]:
        """What was found of its family, where the family has no card and this is its reference."""
        family = int(self.atlas.families.labels[latent])
        with_card = not self.tied and family in linked_families
        alone = family in self.used and not with_card and self.atlas.families.references[family] == latent
        return self.used[family] if alone else []

    def _spectrum_label(self, latent: int) -> str:
        shares = self.power[latent]
        strongest = [f"{percent(shares[k])} at {k}" for k in np.argsort(-shares, kind="stable")[:3] if shares[k] > 0]
        return f"Share of power of latent {latent} by repeats in a full turn: {', '.join(strongest) or 'none'}"

    def _turned_back(self, latent: int, limit: int) -> list[Patch]:
        """A base latent's strongest patches, each turned back by the pose that it was found in."""
        found = []
        for (example, _), pose in zip(self.patches.examples(latent, limit), self.patches.poses(latent), strict=False):
            back = int(self.group.inverse[pose])
            found.append(self.patches.transformed(example, back, ""))
        return found

    def _faint(self, latent: int) -> bool:
        """Whether a latent that is said to move changes so little that its ring is nearly one colour."""
        moves = self.kind(latent).key not in ("invariant", "dead")
        return moves and self.modulation is not None and bool(self.modulation[latent] < FAINT)

    def _evidence(self, latent: int, axes: list[float]) -> list[Evidence]:
        if self.group.order == 1:
            return []
        values = self.correlation[latent]
        rows = []
        listed = telling_elements(self.group, axes[0] if axes else None)
        for g in listed[1:]:
            rows.append(Evidence(element_words(self.group, g), two_decimals(values[g]), level_class(level(values[g]))))
        if self.group.kind == "dihedral":
            best = self.group.n + int(np.argmax(values[self.group.n :]))
            if max(values[g] for g in listed if self.group.reflections[g]) > values[best] - 0.05:
                return rows
            words = f"best mirror tested, at {format_degrees(float(self.group.axes[best]))}"
            rows.append(Evidence(words, two_decimals(values[best]), level_class(level(values[best]))))
        return rows

    def _transformed(self, latent: int, axes: list[float], examples: list[tuple[int, float]]) -> list[Transformed]:
        if not examples:
            return []
        norms = self.norms[latent]
        top = float(norms.max(initial=0.0)) or 1.0
        found = []
        for g in telling_elements(self.group, axes[0] if axes else None):
            value = float(self.correlation[latent, g])
            patch = self.patches.transformed(examples[0][0], g, element_words(self.group, g))
            found.append(
                Transformed(patch, two_decimals(value), level_class(level(value)), two_decimals(norms[g] / top))
            )
        return found

    def families(self, *, limit: int, max_members: int) -> list[FamilyView]:
        """The `limit` largest families of at least two members, the members in pose order."""
        by_size = sorted((-size, family) for family, size in self.sizes.items() if size > 1)
        return [self._family(family, max_members) for _, family in by_size[:limit]]

    def _family(self, family: int, max_members: int) -> FamilyView:
        group = self.group
        members = [int(m) for m in self.found.members(family)]
        reference = int(self.found.references[family])
        mask = array(self.stabilizers[reference].mask).astype(bool)
        named = {m: pose_words(group, int(self.poses[m]), mask) for m in members}
        members.sort(key=lambda m: (named[m][2], m))
        occupied = np.zeros(group.order, dtype=bool)
        covered = set()
        for m in members:
            coset = group.cayley[int(self.poses[m]), np.flatnonzero(mask)]
            occupied[coset] = True
            covered.add(int(coset.min()))
        n_orientations = group.order // int(mask.sum())
        mirrored = group.kind == "dihedral" and not bool((mask & group.reflections).any())
        words = family_words(len(members), len(covered), n_orientations)
        if self.tied:
            words = f"{len(members)} base latents for one shape; each has all its orientations by itself."
        cells = None if self.tied else dial_cells(occupied, group, mirrored=mirrored)
        keep = np.unique(np.linspace(0, len(members) - 1, min(max_members, len(members))).round().astype(int))
        chosen = [members[i] for i in keep]
        kind = Counter(self.kinds[m] for m in members).most_common(1)[0][0]
        hints = Counter(self.hint(m) for m in members if self.kinds[m] == kind)
        return FamilyView(
            family=family,
            kind=kind_of(kind, group),
            hint=hints.most_common(1)[0][0],
            sentence=words,
            dial=None if cells is None else dial(cells, f"Orientations of family {family}: {words}", mirrored=mirrored),
            dial_cells=cells,
            reference=reference,
            spectrum_label=self._spectrum_label(reference),
            members=[self._member(m, named[m]) for m in chosen],
            left_out=len(members) - len(chosen),
            wide=len(chosen) > NARROW_MEMBERS,
            notes=[]
            if self.tied
            else family_notes(self.atlas.coverage(family), self.table[reference].get("cycle_error")),
            used=[] if self.tied else self.used.get(family, []),
        )

    def _member(self, latent: int, named: tuple[int, str, float]) -> MemberView:
        element, words, _ = named
        examples = self.patches.examples(latent, 1)
        turned_back = None
        if examples:
            # The example holds R_pose of the member, which is R_element of the reference.
            pose = next(iter(self.patches.poses(latent)), self.group.identity)
            back = int(self.group.inverse[self.group.cayley[pose, element]])
            turned_back = self.patches.transformed(examples[0][0], back, f"turned back by {words}")
        return MemberView(
            latent=latent,
            pose=words,
            mirrored=bool(self.group.reflections[element]),
            match=two_decimals(float(self.matches[latent])),
            patch=self.patches.upright(*examples[0]) if examples else None,
            turned_back=turned_back,
            ring=self.small_ring(latent),
        )


def _ring_cells(latent: int) -> Markup:
    """Where the script draws a latent's ring."""
    return Markup('<g data-ring="{}"></g>').format(latent)


def power_by_frequency(spectrum_LR: np.ndarray, group: Group) -> np.ndarray:
    """Share of power at each angular frequency 0 … n/2, [L, n//2 + 1]: the irreps of one frequency together."""
    found = np.zeros((len(spectrum_LR), group.n // 2 + 1))
    for column, irrep in enumerate(group.irreps()):
        found[:, irrep.frequency] += spectrum_LR[:, column]
    return found


def select_latents(kinds: list[str], frequency: np.ndarray | None, limit: int) -> list[int]:
    """At most `limit` latents, ascending: from each kind in turn the most often active one, so none is crowded out.

    Without frequencies the lower index goes first. Dead latents have no card.
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
