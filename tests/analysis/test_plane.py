"""The map of base latents: likeness in any pose, landmarks, places apart, what is degenerate."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from groupcc.analysis import analyze, translate
from groupcc.analysis.families import likeness_plane as module
from groupcc.analysis.families.likeness_plane import SPACING, plane
from groupcc.groups import group
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.report import write_report
from helpers.browser import CHROMIUM, ask
from helpers.report_samples import drawn, page_data, tied_atlas

D6 = group("D6")


def arc(n: int) -> torch.Tensor:
    """Latents that turn little by little from one shape into another."""
    a, b = torch.linalg.qr(torch.randn(12 * 16, 2, generator=torch.Generator().manual_seed(0)))[0].T
    t = torch.linspace(0, 1.3, n)[:, None]
    return (t.cos() * a + t.sin() * b).view(n, 12, 16)


def distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None], axis=2)


def test_likeness_is_in_the_best_pose(monkeypatch):
    monkeypatch.setattr(module, "SPACING", 1e-9)
    W = arc(20)
    points = plane(W, D6, np.arange(20))
    order = points[:, 0] if np.ptp(points[:, 0]) > np.ptp(points[:, 1]) else points[:, 1]
    assert abs(np.corrcoef(np.argsort(np.argsort(order)), np.arange(20))[0, 1]) > 0.99
    turned = torch.stack([translate(d[None], D6, i % 12)[0] for i, d in enumerate(W)])
    np.testing.assert_allclose(distances(plane(turned, D6, np.arange(20))), distances(points), atol=1e-3)


def test_classical_scaling_against_the_direct_sum(monkeypatch):
    """With nothing to move apart, distances are those of the leading components of the centred similarities."""
    monkeypatch.setattr(module, "SPACING", 1e-9)
    W = torch.randn(9, 12, 5, generator=torch.Generator().manual_seed(1))
    unit = W.flatten(1) / W.flatten(1).norm(dim=1, keepdim=True)
    moved = torch.stack([translate(unit.view_as(W), D6, h).flatten(1) for h in range(12)])
    S = torch.einsum("id,hjd->hij", unit, moved).amax(0).double().numpy()
    J = np.eye(9) - 1 / 9
    values, vectors = np.linalg.eigh(J @ S @ J)
    expected = distances(vectors[:, -2:] * np.sqrt(values[-2:]))
    found = distances(plane(W, D6, np.arange(9)))
    np.testing.assert_allclose(found / found.max(), expected / expected.max(), atol=1e-4)


def test_others_are_placed_by_their_likeness_to_landmarks(monkeypatch):
    W = arc(60)[torch.randperm(60, generator=torch.Generator().manual_seed(2))]
    monkeypatch.setattr(module, "SPACING", 1e-9)
    whole = distances(plane(W, D6, np.arange(60)))
    monkeypatch.setattr(module, "LANDMARKS", 12)
    few = distances(plane(W, D6, np.arange(60)))
    assert np.corrcoef(whole.ravel(), few.ravel())[0, 1] > 0.99


def test_places_lie_apart():
    W = torch.randn(80, 12, 4, generator=torch.Generator().manual_seed(3))
    away = distances(plane(W, D6, np.arange(80))) + 9 * np.eye(80)
    assert away.min() > 0.95 * SPACING / np.sqrt(80)
    alike = plane(W[:1].expand(30, -1, -1), D6, np.arange(30))
    away = distances(alike) + 9 * np.eye(30)
    assert np.isfinite(alike).all()
    assert away.min() > 0.9 * SPACING / np.sqrt(30)


def test_few_latents_and_some_of_them():
    W = arc(6)
    assert plane(W, D6, np.arange(0)).shape == (0, 2)
    assert plane(W, D6, np.arange(1)).tolist() == [[0, 0]]
    assert np.isfinite(plane(W, D6, np.arange(2))).all()
    assert np.array_equal(plane(W, D6, np.array([1, 3, 5])), plane(W[1::2], D6, np.arange(3)))
    trivial = group("C1")
    assert np.isfinite(plane(torch.ones(3, 1, 1), trivial, np.arange(3))).all()


def test_the_map_of_a_tied_crosscoder_is_of_this_kind_and_copies_lie_together():
    crosscoder = GroupCrosscoder(CrosscoderConfig(group="D6", d_in=16, n_latents=24, k=1, encoder="orbit", tied=True))
    blocks = torch.randn(24, 12, 16, generator=torch.Generator().manual_seed(4))
    blocks[7] = translate(blocks[20][None], D6, 9)[0] + 0.1 * blocks[7]
    blocks[3] = 0
    with torch.no_grad():
        crosscoder.W_dec.copy_(blocks)
    atlas = analyze(crosscoder)
    points = atlas.embedding.points.numpy()
    assert np.isnan(points[3]).all()
    away = distances(np.delete(points, 3, 0)) + 9 * np.eye(23)
    assert away.min() > 0.8 * SPACING / np.sqrt(23)
    drawn_at = distances(plane(blocks, D6, np.delete(np.arange(24), 3)))
    away = distances(np.delete(points, 3, 0))
    np.testing.assert_allclose(away / away.max(), drawn_at / drawn_at.max(), atol=0.02)
    others = distances(points)[7]
    others[[3, 7]] = 9
    assert others.argmin() == 20
    assert float(np.nanmax(points)) == pytest.approx(1)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here")
def test_dots_of_a_tied_page_grow_with_frequency_and_lines_join_copies(tmp_path: Path):
    atlas = tied_atlas("D8", ("circle", "line", "curve", "curve", "spiral"))
    labels = torch.tensor([1, 2, 0, 0, 3])
    atlas = dataclasses.replace(
        atlas,
        frequency=torch.tensor([0.4, 0.1, 0.2, 0.001, 0.1]),
        duplicates=dataclasses.replace(atlas.duplicates, labels=labels, references=[2, 0, 1, 4]),
    )
    page = write_report(tmp_path / "r.html", atlas)
    text = page.read_text(encoding="utf-8")
    assert "the more often" in text
    assert "A line joins" in text
    assert "disc under dots" not in drawn(text)
    data = page_data(text)
    sizes, lines, discs, says = ask(
        page,
        tmp_path,
        """const map = document.getElementById("map"), sizes = [];
        for (const path of map.querySelectorAll("path")) {
          for (const [, x, y, r] of path.getAttribute("d").matchAll(/M([-0-9.]+) ([-0-9.]+)a([0-9.]+) /g)) {
            sizes.push([+x + +r, +y, +r]);
          }
        }
        const ends = [...map.querySelectorAll("line")].map((line) =>
          ["x1", "y1", "x2", "y2"].map((name) => +line.getAttribute(name)));
        const box = map.getBoundingClientRect(), view = map.viewBox.baseVal, scale = box.width / view.width;
        const at = (x, y) => ({clientX: box.left + (x - view.x) * scale, clientY: box.top + (y - view.y) * scale});
        map.dispatchEvent(new PointerEvent("pointermove", at(sizes[0][0], sizes[0][1])));
        const said = document.getElementById("map-says").textContent;
        return [sizes, ends, map.querySelectorAll("circle").length, said];""",
    )
    assert discs == 0
    assert "family" not in says
    assert says.startswith("Latent ")
    columns = data["columns"]
    places = {
        latent: (12 + 976 * columns["map_x"][row], 12 + 976 * columns["map_y"][row])
        for row, latent in enumerate(data["latents"])
    }
    radius = {
        latent: min(sizes, key=lambda dot, x=x, y=y: abs(dot[0] - x) + abs(dot[1] - y))[2]
        for latent, (x, y) in places.items()
    }
    assert radius[0] == 34
    assert radius[1] == radius[4] == pytest.approx(17, abs=0.1)
    assert radius[2] == pytest.approx(34 * 0.5**0.5, abs=0.1)
    assert radius[3] == pytest.approx(34 / 4, abs=0.1)
    assert lines == [pytest.approx([*places[3], *places[2]], abs=0.1)]
