"""Two layers compared by what fires: planted shapes, seen through two maps, are told for what they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import groupcc
from groupcc.analysis.compare.atlases import _match_firing
from groupcc.analysis.compare.firing import Likeness, compare_firing, family_firing
from groupcc.data.orbits import TensorOrbits
from groupcc.errors import ArgumentError
from groupcc.groups import group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.zoo.planted import planted

GROUP = group("D4")
TYPES = ["C1", "D1", "C2", "D1", "C1", "D2"]
WORLD = planted("D4", d_in=64, n_latents=len(TYPES), stabilizers=TYPES, seed=3)
ACTIVE = 3


def layer(width: int, seed: int, shapes: list[int], merged: tuple[int, ...] = (), **config):
    """A layer that sees these shapes of the world through a random map, and a dictionary that knows them.

    A shape in `merged` is seen with a mirror of its own more: its pairs of mirrored atoms are one. Returns the
    crosscoder, its atlas, the shape of each of its families, and a function from codes of the world to orbits.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.linalg.qr(torch.randn(64, width, generator=generator)).Q
    mirror = GROUP.right_translation[GROUP.n]  # R_u, u the first mirror
    base = WORLD.base.clone()
    for shape in merged:
        base[shape] = (base[shape] + base[shape][torch.tensor(mirror)]) / 2
    poses = torch.tensor(GROUP.right_translation)[WORLD.atom_pose]
    atoms = base[WORLD.atom_base[:, None], poses] @ mixing
    seen = torch.isin(WORLD.atom_base, torch.tensor(shapes))
    distinct = seen & ~torch.tensor(
        [f in merged and bool((atoms[:i] - atoms[i]).abs().flatten(1).amax(1).lt(1e-5).any()) for i, f in
         enumerate(WORLD.atom_base.tolist())]
    )  # fmt: skip
    order = distinct.nonzero()[:, 0][torch.randperm(int(distinct.sum()), generator=generator)]
    if config.get("tied"):
        order = torch.stack([order[WORLD.atom_base[order] == f][0] for f in shapes])
    settings = {"k": ACTIVE, "encoder": "orbit"} | config
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(group="D4", d_in=width, n_latents=len(order), decoder_norm="free", **settings)
    )
    known = torch.linalg.pinv(atoms[distinct].flatten(1)).T.view(-1, GROUP.order, width)  # reads the codes back
    place = {int(atom): i for i, atom in enumerate(distinct.nonzero()[:, 0])}
    with torch.no_grad():
        crosscoder.W_dec.copy_(atoms[order])
        crosscoder.W_enc.copy_(known[[place[int(atom)] for atom in order]])
        crosscoder.b_enc.fill_(-0.05)  # rounding alone fires nothing
    atlas = groupcc.analyze(crosscoder, tolerance=0.1)
    names = [int(WORLD.atom_base[order[reference]]) for reference in atlas.families.references]
    return crosscoder, atlas, names, lambda codes: torch.einsum("na,agd->ngd", codes * seen, atoms)


def codes(n: int = 1000, **options) -> torch.Tensor:
    _, truth = WORLD.sample(n, ACTIVE, seed=1, **options)
    return torch.zeros(n, len(WORLD.atoms)).scatter_(1, truth.indices, truth.acts)


def compared(first, second, acts: torch.Tensor, other: torch.Tensor | None = None, **options):
    orbits = (first[3](acts), second[3](acts if other is None else other))
    return groupcc.compare_atlases(first[1], second[1], (first[0], second[0]), orbits=orbits, **options)


def by_shape(found, first, second) -> dict[str, list[tuple[int | None, int | None]]]:
    """The shapes of the families of each pair, by what became of them."""
    told: dict[str, list[tuple[int | None, int | None]]] = {}
    for pair in found.families:
        shapes = tuple(
            None if i is None else side[2][i] for i, side in ((pair.family_a, first), (pair.family_b, second))
        )
        told.setdefault(pair.change, []).append(shapes)
    return {change: sorted(shapes, key=str) for change, shapes in told.items()}


FIRST = layer(40, 1, [0, 1, 2, 3, 4])
SECOND = layer(48, 2, [0, 1, 2, 4, 5], merged=(4,))


def test_planted_shapes_that_stay_go_come_and_change() -> None:
    found = compared(FIRST, SECOND, codes())
    assert (found.basis, found.places, found.images) == ("activations", 1000, 1000)
    assert found.reason == "the layers differ in width, 40 and 48."
    assert by_shape(found, FIRST, SECOND) == {
        "kept": [(0, 0), (1, 1), (2, 2)],
        "changed": [(4, 4)],
        "vanished": [(3, None)],
        "appeared": [(None, 5)],
    }
    assert found.counts == {"kept": 3, "changed": 1, "vanished": 1, "appeared": 1, "unclear": 0}
    assert all(pair.similarity > 0.97 for pair in found.families if pair.change == "kept")
    (changed,) = [pair for pair in found.families if pair.change == "changed"]
    assert (changed.stabilizer_a, changed.stabilizer_b) == ("C1", "D1")
    assert changed.similarity == pytest.approx(0.5**0.5, abs=0.05)  # it fires in half of the other's poses
    assert found.threshold < 0.3
    assert "at 1,000 places of 1,000 images" in found.summary()
    # Under eight rotations nobody can say that a white latent has no mirror: the change may be none.
    assert changed.doubt_a.startswith("too few rotations")
    assert "Of the 1 changed, a stabilizer is in doubt in 1." in found.summary()


def test_wrongly_paired_places_match_nothing() -> None:
    acts = codes()
    for seed in range(3):
        shuffled = acts[torch.randperm(len(acts), generator=torch.Generator().manual_seed(seed))]
        found = compared(FIRST, SECOND, acts, shuffled)
        assert found.counts["kept"] + found.counts["changed"] == 0
        assert found.threshold == 1.0


def test_a_family_that_vanished_is_not_given_to_what_occurs_with_it() -> None:
    """Shapes 0 and 1 occur together, and 4 and 5. The second layer lacks 0 and has 5: both are like their partners,
    beyond chance, which have a nearer one. The largest sum would make one shape of 0 and 5, or of 0 and 1."""
    second = layer(48, 2, [1, 2, 3, 4, 5])
    acts = codes(partners=0.9)
    found = compared(FIRST, second, acts)
    told = by_shape(found, FIRST, second)
    assert told["kept"] == [(1, 1), (2, 2), (3, 3), (4, 4)]
    rest = [shapes for change, shapes in told.items() if change != "kept"]
    assert sorted([pair for shapes in rest for pair in shapes], key=str) == [(0, None), (None, 5)]
    firing = [family_firing(s[1], s[0], TensorOrbits(s[3](acts)), torch.arange(len(acts))) for s in (FIRST, second)]
    likeness = compare_firing(*firing, GROUP)
    gone, partner = FIRST[2].index(0), second[2].index(1)
    assert found.threshold < likeness.similarity[gone].max() == likeness.similarity[gone, partner] < 0.9
    # Nothing in the second layer is more like it than its companion in its own is.
    assert likeness.own_a[gone] == pytest.approx(likeness.similarity[gone, partner], abs=0.02)


def test_a_family_that_was_split_is_unclear_in_part() -> None:
    """The second dictionary has two families for it, each with a share of the places."""
    (crosscoder, atlas, names, world), acts = FIRST, codes()
    family = names.index(0)
    firing = family_firing(atlas, crosscoder, TensorOrbits(world(acts)), torch.arange(len(acts)))
    share = (torch.arange(len(acts)) % 5 < 3).float()
    others = [i for i in range(5) if i != family]
    split = torch.stack([firing[family] * share, firing[family] * (1 - share), *firing[others]])
    likeness = compare_firing(firing, split, GROUP)
    assert sorted(likeness.matches(likeness.threshold)) == sorted([(family, 0), *zip(others, range(2, 6), strict=True)])
    assert likeness.nearest(likeness.threshold)[1][1] == family
    assert likeness.nearest(0.9)[1][1] is None
    same = torch.cat([split, split[1:2]])  # its like is in its own dictionary
    assert compare_firing(firing, same, GROUP).nearest(0.1)[1][1] is None


def test_one_detector_finds_a_family_of_all_whatever_pose_it_is_in() -> None:
    """The references of the two differ by a mirror: only the right side of the group's action brings them together."""
    for shape in (0, 1):  # C1 and D1
        atoms = (WORLD.atom_base == shape).nonzero()[:, 0]
        whole = layer(40, 1, [shape])
        for atom in (atoms[1], atoms[-1]):
            single = layer(48, 2, [shape])
            crosscoder = single[0]
            keep = [
                i for i in range(crosscoder.config.n_latents)
                if torch.allclose(crosscoder.encode(single[3](torch.eye(len(WORLD.atoms))[atom][None])).to_dense(
                    crosscoder.config.n_latents)[0, i], torch.tensor(0.95), atol=1e-2)
            ]  # fmt: skip
            assert len(keep) == 1
            with torch.no_grad():
                gone = [i for i in range(crosscoder.config.n_latents) if i != keep[0]]
                crosscoder.W_dec[gone] = 0
                crosscoder.W_enc[gone] = 0
            atlas = groupcc.analyze(crosscoder, tolerance=0.1)
            alone = (crosscoder, atlas, [shape], single[3])
            found = compared(whole, alone, codes())
            assert found.families[0].similarity == pytest.approx(1, abs=0.02)
            assert (found.families[0].size_a, found.families[0].size_b) == (len(atoms), 1)


@pytest.mark.parametrize("pose", ["max", "nms"])
def test_a_tied_crosscoder_says_what_its_atoms_say(pose: str) -> None:
    tied = layer(48, 2, [0, 1, 2, 4, 5], tied=True, pose=pose, k=5)
    found = compared(FIRST, tied, codes())
    assert by_shape(found, FIRST, tied)["kept"] == [(0, 0), (1, 1), (2, 2), (4, 4)]
    # "max" has one pose of a shape at a time where the others have several.
    assert min(pair.similarity for pair in found.families if pair.change == "kept") > {"max": 0.85, "nms": 0.97}[pose]
    acts = tied[3](codes(200))
    untied = tied[0].untie()
    atlas = groupcc.analyze(untied, tolerance=0.1)
    sides = ((tied[1], tied[0]), (atlas, untied))
    likeness = compare_firing(*(family_firing(*side, TensorOrbits(acts), torch.arange(200)) for side in sides), GROUP)
    assert len(likeness.matches(0.95)) == 5


def test_firing_by_its_definition() -> None:
    crosscoder, atlas, _, world = FIRST
    acts = world(codes(20))
    firing = family_firing(atlas, crosscoder, TensorOrbits(acts), torch.tensor([3, 7]))
    expected = torch.zeros_like(firing)
    for m, (family, pose) in enumerate(zip(atlas.families.labels.tolist(), atlas.families.poses.tolist(), strict=True)):
        for r in range(GROUP.order):
            moved = acts[[3, 7]][:, torch.tensor(GROUP.right_translation[GROUP.cayley[pose, r]])]
            dense = crosscoder.encode(moved).to_dense(crosscoder.config.n_latents)
            expected[family, r] += crosscoder.W_dec[m].norm().item() * dense[:, m]
    assert firing.shape == (5, GROUP.order, 2)
    assert torch.allclose(firing, expected, atol=1e-5)
    assert crosscoder.training


def test_firing_does_not_depend_on_the_batch() -> None:
    """Training's batchtopk shares its latents out over a batch; what a family fires for does not."""
    crosscoder, atlas, _, world = layer(40, 1, [0, 1, 2, 3, 4], sparsity="batchtopk", k=2)
    crosscoder.threshold.fill_(0.5)
    crosscoder.train()
    orbits = TensorOrbits(world(codes(20)))
    whole, some = (family_firing(atlas, crosscoder, orbits, torch.tensor(which)) for which in (range(20), [3, 7]))
    assert torch.allclose(whole[:, :, [3, 7]], some, atol=1e-5)


def test_what_is_nearest_is_told_of_the_unclear_ones_of_both() -> None:
    similarity = np.diag([0.9, 0.85, 0.8, 0.1, 0.0]).astype(np.float32)
    similarity[4, 0], similarity[0, 3] = 0.7, 0.6
    own_a, own_b = np.full(5, 0.3, dtype=np.float32), np.full(5, 0.2, dtype=np.float32)
    likeness = Likeness(similarity, own_a, own_b, [50] * 5, [40] * 5, 0.5)
    found = _match_firing(FIRST[1], SECOND[1], likeness, 0.5)
    told = [(p.change in ("kept", "changed"), p.family_a, p.family_b, p.nearest, p.similarity) for p in found]
    assert told == [
        (True, 0, 0, None, pytest.approx(0.9)),
        (True, 1, 1, None, pytest.approx(0.85)),
        (True, 2, 2, None, pytest.approx(0.8)),
        (False, 4, None, 0, pytest.approx(0.7)),
        (False, None, 3, 0, pytest.approx(0.6)),
        (False, 3, None, None, None),
        (False, None, 4, None, None),
    ]
    assert [pair.change for pair in found[3:]] == ["unclear", "unclear", "vanished", "appeared"]
    assert [(pair.places_a, pair.places_b) for pair in found[2:5]] == [(50, 40), (50, None), (None, 40)]


def test_orbits_of_another_layer() -> None:
    first, second = (layer(40, seed, [0, 1, 2, 3, 4]) for seed in (1, 2))
    orbits = []
    for name, side in (("3a", first), ("3b", second)):
        side[0].provenance = {"model": "net", "layer": name}
        orbits.append(TensorOrbits(side[3](codes(200))))
        orbits[-1].layer = name
    crosscoders = first[0], second[0]
    assert groupcc.compare_atlases(first[1], second[1], crosscoders, orbits=orbits).counts["kept"] == 5
    with pytest.raises(ArgumentError, match="orbits: expected those of layer 3a; got 3b"):
        groupcc.compare_atlases(first[1], second[1], crosscoders, orbits=orbits[::-1])


def test_likeness_by_its_definition() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.rand(3, GROUP.order, 40, generator=generator) for _ in "ab")
    found = compare_firing(a, b, GROUP).similarity
    for i in range(3):
        for j in range(3):
            over = [
                np.corrcoef(a[i].flatten(), b[j][torch.tensor(GROUP.cayley[k])].flatten())[0, 1]
                for k in range(GROUP.order)
            ]
            assert found[i, j] == pytest.approx(max(over), abs=1e-5)


def test_a_family_that_fires_too_seldom_is_unclear() -> None:
    acts = codes()
    rare = acts.clone()
    rare[8:, WORLD.atom_base == 2] = 0
    found = compared(FIRST, SECOND, rare)
    told = by_shape(found, FIRST, SECOND)
    assert told["unclear"] == [(2, None), (None, 2)]
    assert all(pair.nearest is None for pair in found.families if pair.change == "unclear")
    assert "and those that fire at fewer than 10 of the places" in found.summary()
    assert {max(p.places_a or 0, p.places_b or 0) for p in found.families if p.change == "unclear"} <= set(range(10))


def test_what_cannot_be_compared_by_activations_says_what_would_mend_it() -> None:
    a, b = FIRST, SECOND
    acts = codes()
    without = groupcc.compare_atlases(a[1], b[1], (a[0], b[0]))
    assert without.basis == "counts"
    assert without.reason == (
        "the layers differ in width, 40 and 48. To match families by what they fire for, give the orbits of both: "
        "orbits=(store_a, store_b), or --orbits DIR_A DIR_B."
    )
    few = compared(a, b, acts[:99])
    assert few.basis == "counts"
    assert "have 99 places of the same images, and it takes 100" in few.reason
    with pytest.raises(ArgumentError, match=r"basis: expected activations of both; got .*99 places"):
        compared(a, b, acts[:99], basis="activations")
    with pytest.raises(ArgumentError, match="basis: expected decoders that can be compared; got the layers differ"):
        compared(a, b, acts, basis="decoders")
    with pytest.raises(ArgumentError, match='basis: expected "auto", "decoders" or "activations"'):
        compared(a, b, acts, basis="names")
    with pytest.raises(ArgumentError, match="orbits: expected two orbit stores, or two tensors"):
        compared(a, b, acts, acts[:500])
    with pytest.raises(ArgumentError, match=r"orbits: .*\[8, 40\]|orbits: .*, 8, 40\]"):
        groupcc.compare_atlases(a[1], b[1], (a[0], b[0]), orbits=(b[3](acts), a[3](acts)))


def test_one_layer_keeps_to_its_decoders_unless_told() -> None:
    acts = codes()
    assert compared(FIRST, FIRST, acts).basis == "decoders"
    found = compared(FIRST, FIRST, acts, basis="activations")
    assert (found.basis, found.reason, found.counts["kept"]) == ("activations", None, 5)
    assert set(found.table()[0]) - set(compared(FIRST, FIRST, acts).table()[0]) == {"places_a", "places_b", "nearest"}
    assert compared(FIRST, SECOND, acts, threshold=0.9).counts["changed"] == 0


def test_nothing_alive_on_one_side() -> None:
    crosscoder, _, _, world = layer(48, 2, [0, 1])
    with torch.no_grad():
        crosscoder.W_dec.zero_()
    dead = (crosscoder, groupcc.analyze(crosscoder), [], world)
    assert compared(FIRST, dead, codes()).counts == dict.fromkeys(("kept", "changed", "appeared", "unclear"), 0) | {
        "vanished": 5
    }
    assert compared(dead, dead, codes(), basis="activations").families == []
