"""Families as the page and the figures show them: the largest ones, their members in pose order."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from groupcc.analysis.numbers import two_decimals
from groupcc.report.pictures import Patch, PatchBook
from groupcc.report.reader import Reader
from groupcc.report.svg import dial, dial_cells
from groupcc.report.words import Kind, family_words, kind_of, pose_words

__all__ = ["FamilyView", "MemberView", "family_views"]

NARROW_MEMBERS = 7
"""Members up to which two family cards fit side by side."""


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
    """A family. `dial`: which of its orientations are covered; None if latents have poses, which cover all."""

    family: int
    reference: int
    kind: Kind
    hint: str
    sentence: str
    dial: Markup | None
    dial_cells: Markup | None
    members: list[MemberView]
    left_out: int

    @property
    def wide(self) -> bool:
        """Whether its card takes the whole width."""
        return len(self.members) > NARROW_MEMBERS


def family_views(reader: Reader, patches: PatchBook, *, limit: int, max_members: int) -> list[FamilyView]:
    """Returns the `limit` largest families of at least two latents."""
    labels = reader.atlas.searched.labels.numpy()
    sizes = Counter(labels[labels >= 0].tolist())
    by_size = sorted((-size, family) for family, size in sizes.items() if size > 1)
    return [_family(reader, patches, family, max_members) for _, family in by_size[:limit]]


def _family(reader: Reader, patches: PatchBook, family: int, max_members: int) -> FamilyView:
    atlas, group, searched = reader.atlas, reader.group, reader.atlas.searched
    members, reference = searched.members(family), searched.references[family]
    mask = atlas.stabilizers[reference].mask
    named = {m: pose_words(group, int(searched.poses[m]), mask) for m in members}
    members.sort(key=lambda m: (named[m][2], m))
    cosets = [group.cayley[int(searched.poses[m]), np.flatnonzero(mask)] for m in members]
    mirrored = group.kind == "dihedral" and not bool((mask & group.reflections).any())
    if atlas.has_poses:
        words, cells = f"{len(members)} base latents for one shape; each has all its orientations by itself.", None
    else:
        covered = {int(coset.min()) for coset in cosets}
        words = family_words(len(members), len(covered), group.order // int(mask.sum()))
        occupied = np.isin(np.arange(group.order), np.concatenate(cosets))
        cells = dial_cells(occupied, group, mirrored=mirrored)
    keep = np.unique(np.linspace(0, len(members) - 1, min(max_members, len(members))).round().astype(int))
    kind = Counter(reader.kinds[m] for m in members).most_common(1)[0][0]
    hints = Counter(reader.hint(m) for m in members if reader.kinds[m] == kind)
    label = f"Orientations of family {family}: {words}"
    return FamilyView(
        family=family,
        reference=reference,
        kind=kind_of(kind, group),
        hint=hints.most_common(1)[0][0],
        sentence=words,
        dial=None if cells is None else dial(cells, label, mirrored=mirrored),
        dial_cells=cells,
        members=[_member(reader, patches, m, named[m]) for m in (members[i] for i in keep)],
        left_out=len(members) - len(keep),
    )


def _member(reader: Reader, patches: PatchBook, latent: int, named: tuple[int, str, float]) -> MemberView:
    group, (element, words, _) = reader.group, named
    examples = patches.examples(latent, 1)
    turned_back = None
    if examples:
        # The example holds R_pose of the member, which is R_element of the reference.
        pose = next(iter(patches.poses(latent)), group.identity)
        back = int(group.inverse[group.cayley[pose, element]])
        turned_back = patches.transformed(examples[0][0], back, f"turned back by {words}")
    return MemberView(
        latent=latent,
        pose=words,
        mirrored=bool(group.reflections[element]),
        match=two_decimals(float(reader.atlas.searched.similarity_to_reference[latent])),
        patch=patches.upright(*examples[0]) if examples else None,
        turned_back=turned_back,
        ring=reader.ring(latent),
    )
