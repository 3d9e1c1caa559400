"""The family map: discs of families, members by pose, UMAP, what is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from groupcc.analysis import Atlas, translate
from groupcc.analysis.families.family_map import RINGS, embed, shelves
from groupcc.cli.commands import analysis_options
from groupcc.cli.parser import build_parser
from groupcc.errors import ArgumentError
from groupcc.zoo.planted import planted
from helpers.dictionaries import atlas_of, noisy

KINDS = ["C1", "D1@90°", "C2"]


def dictionary(alone: int = 6, dead: int = 2) -> torch.Tensor:
    truth = planted("D6", d_in=32, n_latents=9, stabilizers=KINDS, seed=0)
    generator = torch.Generator().manual_seed(3)
    others = [torch.randn(alone, 12, 32, generator=generator), torch.zeros(dead, 12, 32)]
    return torch.cat([noisy(truth.atoms, 0.2, 1), *others])


def test_members_sit_at_their_pose_and_families_apart():
    atlas = atlas_of(dictionary(), "D6")
    families, points = atlas.families, atlas.embedding.points.double()
    assert points[:-2].isfinite().all()
    assert points[-2:].isnan().all()
    assert float(points[:-2].amin()) == 0
    assert float(points[:-2].amax()) == pytest.approx(1)
    discs = []
    for family in range(len(families)):
        members = torch.tensor(families.members(family))
        if len(members) == 1:
            discs.append((points[members[0]], 0.0))
            continue
        centre = points[members].mean(0)  # every pose of a ring is there
        away = points[members] - centre
        rim = float(away.norm(dim=1).max()) / RINGS[0]
        expected = torch.where(families.mirrored[members], RINGS[1], RINGS[0]) * rim
        torch.testing.assert_close(away.norm(dim=1), expected.double(), atol=2e-3, rtol=0)
        stabilizer = atlas.stabilizers[families.references[family]]
        rotations = int((stabilizer.mask & ~atlas.group.reflections).sum())
        angle = torch.atan2(away[:, 1], away[:, 0]).rad2deg() - rotations * families.turns[members]
        assert (((angle + 180) % 360) - 180).abs().max() < 1
        discs.append((centre, rim))
        # The area is in proportion to the members.
        assert rim**2 / len(members) == pytest.approx(discs[0][1] ** 2 / families.sizes[0], rel=0.02)
    assert len(discs) == 15
    for i, (centre, rim) in enumerate(discs):
        for other, its_rim in discs[:i]:
            assert float((centre - other).norm()) > 0.99 * (rim + its_rim)


def test_discs_of_any_sizes_lie_apart():
    rng = np.random.default_rng(0)
    radius = rng.choice([0.5, 1.0, 4.0], size=40)
    order = rng.normal(size=(40, 2))
    order[:, 1] += radius  # shelves of small ones, of both, and of large ones
    centre = shelves(order, radius)
    apart = np.linalg.norm(centre[:, None] - centre, axis=2)
    touching = radius[:, None] + radius
    assert (apart + 1e-9 >= touching)[~np.eye(40, dtype=bool)].all()
    width, height = (centre + radius[:, None]).max(0) - (centre - radius[:, None]).min(0)
    assert 0.5 < width / height < 2


def test_alike_families_are_side_by_side():
    # Two kinds of families, each in channels of its own.
    truth = planted("D4", d_in=16, n_latents=60, stabilizers=["C1"], seed=0)
    kind = torch.arange(60) % 2
    base = torch.zeros(60, 8, 64)
    base[kind == 0, :, :16] = truth.base[kind == 0]
    base[kind == 1, :, 48:] = truth.base[kind == 1]
    points = atlas_of(base, "D4").embedding.points
    nearest = (torch.cdist(points, points) + 9 * torch.eye(60)).argmin(1)
    assert (kind[nearest] == kind).float().mean() > 0.75  # 0.5 by chance, ± 0.06


def test_the_map_does_not_depend_on_poses_or_on_chance():
    W = dictionary(dead=0)
    atlas = atlas_of(W, "D6")
    turned = torch.stack([translate(d, atlas.group, 9) for d in W])
    for V in (W, turned):
        torch.manual_seed(int(V is turned))
        np.random.seed(int(V is turned))
        again = embed(V, atlas.group, atlas.families, atlas.stabilizers).points
        torch.testing.assert_close(again, atlas.embedding.points, atol=1e-5, rtol=0)


def test_saved_and_in_the_table(tmp_path):
    atlas = atlas_of(dictionary(), "D6")
    again = Atlas.load(atlas.save(tmp_path / "atlas"))
    torch.testing.assert_close(again.embedding.points, atlas.embedding.points, equal_nan=True, rtol=0, atol=0)
    assert again.embedding.method == "pca"
    rows = again.table()
    assert (rows[-1]["map_x"], rows[-1]["map_y"]) == (None, None)
    assert [rows[4]["map_x"], rows[4]["map_y"]] == pytest.approx(atlas.embedding.points[4].tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["C1", "D3"])
def test_little_to_draw(name):
    order = 1 if name == "C1" else 6
    one = torch.randn(1, order, 1, generator=torch.Generator().manual_seed(0)).abs()
    assert atlas_of(one, name).embedding.points.tolist() == [[0, 0]]
    assert atlas_of(torch.zeros(2, order, 3), name).embedding.points.isnan().all()
    alike = atlas_of(one.expand(7, -1, -1), name).embedding.points
    assert alike.isfinite().all()


def test_umap_must_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(ArgumentError, match=r"umap-learn to be installed.*pip install 'groupcc\[umap\]'"):
        atlas_of(dictionary(), "D6", embedding="umap")
    with pytest.raises(ArgumentError, match='embedding: expected "pca" or "umap"; got tsne'):
        atlas_of(dictionary(), "D6", embedding="tsne")
    line = ["analyze", "--crosscoder", "c", "--out", "o"]
    assert "embedding" not in analysis_options(build_parser().parse_args(line))
    with pytest.raises(ArgumentError, match="umap-learn"):
        analysis_options(build_parser().parse_args([*line, "--embedding", "umap"]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_umap_draws_families_apart(tmp_path):
    pytest.importorskip("umap")
    W = dictionary()
    atlas = atlas_of(W, "D6", embedding="umap")
    points, labels = atlas.embedding.points.double(), atlas.families.labels
    assert atlas.embedding.method == "umap"
    assert points[:-2].isfinite().all()
    large = [f for f, size in enumerate(atlas.families.sizes) if size > 1]
    centres = torch.stack([points[labels == f].mean(0) for f in large])
    spread = max(float((points[labels == f] - centres[k]).norm(dim=1).mean()) for k, f in enumerate(large))
    assert float(torch.pdist(centres).min()) > spread
    alone = torch.tensor([size == 1 for size in atlas.families.sizes])[labels] & (labels >= 0)
    assert int(alone.sum()) == 6
    assert float(points[alone, 1].max()) < float(points[~alone & (labels >= 0), 1].min())
    assert len(points[alone].unique(dim=0)) == 6
    again = embed(W, atlas.group, atlas.families, atlas.stabilizers, "umap")
    assert torch.equal(again.points[:-2], atlas.embedding.points[:-2])
    assert Atlas.load(atlas.save(tmp_path / "atlas")).embedding.method == "umap"
