"""The page as a file: well-formed, self-contained, escaped, atomic, complete."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image

from groupcc.analysis import analyze
from groupcc.errors import ArgumentError
from groupcc.harvesting import harvest
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.report import write_report
from helpers.pages import read
from helpers.report_samples import PictureStore, drawn, shape_atlas


@pytest.fixture(scope="module")
def atlas():
    return shape_atlas("D16", {"circle": 2, "cross": 1, "line": 4, "curve": 5, "edge": 2, "spiral": 3}, dead=2, top=5)


def test_page_is_well_formed_and_stands_alone(tmp_path: Path, atlas) -> None:
    metrics = {"fvu": 0.1034, "l0": 8.0, "fvu_per_block": [0.1] * 31 + [None]}
    path = write_report(
        tmp_path / "deep" / "report.html", atlas, PictureStore(), metrics=metrics, provenance={"seed": 3}
    )
    assert path == tmp_path / "deep" / "report.html"
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]
    page = read(path)
    assert len(page.with_class("latent")) == 17
    assert len(page.with_class("family")) == 4
    spectra = re.findall(r'<figure class="f-spectrum">.*?data-latent="(\d+)"', path.read_text(encoding="utf-8"), re.S)
    assert spectra == [str(atlas.families.references[family]) for family in range(4)]
    assert len(page.with_class("heat")) == 17
    assert page.with_class("plot")
    assert "0.103" in page.words
    for label, value in (
        ("Model", "net"),
        ("Layer", "mixed"),
        ("Images", "2"),
        ("Examples", "1,000"),
        ("Latents", "19"),
    ):
        assert f"{label} {value}" in page.words


def test_headline_counts_every_kind(tmp_path: Path, atlas) -> None:
    page = read(write_report(tmp_path / "r.html", atlas))
    counts = ["Of 17 live", "2 look ", "1 repeats ", "4 repeat ", "7 move ", "3 move ", "14 of them", "2 more never"]
    places = [page.words.find(words) for words in counts]
    assert -1 not in places
    assert places == sorted(places)
    assert "4 families" in page.words
    hints = Counter(
        attrs["href"] for tag, attrs in page.tags if tag == "a" and attrs.get("href", "").startswith("#kind")
    )
    assert set(hints) == {f"#kind-{kind}" for kind in ("invariant", "90", "180", "mirror", "none", "dead")}


def test_whatever_users_name_is_escaped(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
    atlas = shape_atlas("D4", {"curve": 3}, top=2)
    store = PictureStore(bad + "\udcff\x00")
    store.model_name = store.layer = bad
    path = write_report(
        tmp_path / "r.html",
        atlas,
        store,
        title=bad,
        metrics={bad: 1.0},
        baseline=[{bad: bad, "verdict": bad}],
        provenance={bad: bad, "nested": {bad: bad}},
    )
    page = read(path)
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert all("onerror" not in attrs for _, attrs in page.tags)
    assert page.words.count("<script>alert(1)</script>") >= 7
    assert any(bad in attrs.get("alt", "") for _, attrs in page.tags)


def test_policy_admits_the_one_script(tmp_path: Path, atlas) -> None:
    text = write_report(tmp_path / "r.html", atlas).read_text(encoding="utf-8")
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(attrs["content"] for tag, attrs in read(tmp_path / "r.html").tags if "http-equiv" in attrs)
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("failure", ["patch", "rename"])
def test_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    store = PictureStore(error=RuntimeError("lost disk") if failure == "patch" else None)
    if failure == "rename":

        def refuse(*_: object) -> None:
            raise RuntimeError("lost disk")

        monkeypatch.setattr("groupcc.files.os.replace", refuse)
    with pytest.raises(RuntimeError, match="lost disk"):
        write_report(path, shape_atlas("D4", {"curve": 2}, top=2), store)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_equal_input_gives_an_equal_file(tmp_path: Path, atlas) -> None:
    first = write_report(tmp_path / "a.html", atlas, PictureStore()).read_bytes()
    assert write_report(tmp_path / "b.html", atlas, PictureStore()).read_bytes() == first


def test_patches_upright_turned_back_and_transformed(tmp_path: Path) -> None:
    atlas = shape_atlas("D8", {"spiral": 4}, top=4)
    G = atlas.group
    # The last member is mirrored: what turns it back is the inverse of its pose, not its turn undone.
    poses = torch.tensor([0, 3, 5, G.n + 3])
    families = dataclasses.replace(atlas.families, poses=poses, references=[0])
    atlas = dataclasses.replace(atlas, families=families)
    store = PictureStore()
    page = read(write_report(tmp_path / "r.html", atlas, store))
    for latent, pose in enumerate(poses.tolist()):
        assert (4 * latent, int(G.inverse[pose])) in store.asked
        assert (4 * latent, 0) in store.asked
    assert len(store.asked) == len(set(store.asked)), "a patch was encoded twice"
    assert any(
        attrs["alt"] == "Patch of camera.png around (12, 30), mirrored at 157.5°" for attrs in page.with_class("patch")
    )
    assert "mirrored, +135°" in page.words
    sources = [attrs["src"] for attrs in page.with_class("patch")]
    # Family: 2 each; card: 4 upright and upright, 45°, 90°, 180°, left–right as seen.
    assert len(sources) == 4 * (2 + 4 + 5)
    image = Image.open(io.BytesIO(base64.b64decode(sources[0].split(",", 1)[1])))
    assert image.size == (64, 64)


def test_without_orbits_there_are_no_patches(tmp_path: Path, atlas) -> None:
    page = read(write_report(tmp_path / "r.html", atlas))
    assert page.with_class("patch") == []
    assert len(page.with_class("latent")) == 17
    no_examples = dataclasses.replace(atlas, top_examples=None)
    assert read(write_report(tmp_path / "r.html", no_examples, PictureStore())).with_class("patch") == []
    assert read(write_report(tmp_path / "r.html", atlas, torch.zeros(3, 32, 24))).with_class("patch") == []


@pytest.mark.parametrize("name", ["C1", "D1", "C2", "D2", "D3", "C8", "D32"])
def test_any_group(tmp_path: Path, name: str) -> None:
    atlas = shape_atlas(name, {"circle": 1}, dead=1, top=2)
    page = read(write_report(tmp_path / "r.html", atlas, PictureStore()))
    if name == "C1":
        assert "symmetry says nothing here" in page.words
        assert page.with_class("shapes") == []
    else:
        assert "1 live latent, 1 " in page.words
    if name.startswith("C"):
        assert "mirror" not in page.words.replace("no turns and no mirrors", "").split("The words used here")[0]
    if name in ("D3", "D1"):
        assert "drawn for D16." in page.words


def test_nothing_alive(tmp_path: Path) -> None:
    page = read(write_report(tmp_path / "r.html", shape_atlas("D4", {}, dead=3, top=1), PictureStore()))
    assert "None of the 3" in page.words
    assert "0, 1, 2" in page.words
    assert page.with_class("latent") == page.with_class("family") == []


def test_one_latent_without_a_family(tmp_path: Path) -> None:
    page = read(write_report(tmp_path / "r.html", shape_atlas("D4", {"curve": 1})))
    assert "No two of them" not in page.words
    assert page.with_class("family") == []
    assert len(page.with_class("latent")) == 1


def test_caps_are_stated(tmp_path: Path) -> None:
    atlas = shape_atlas("D16", {"circle": 4, "line": 30, "curve": 12, "spiral": 1}, top=2)
    options = {"max_latents": 8, "max_latents_per_family": 5, "max_families": 1, "max_patches": 1}
    page = read(write_report(tmp_path / "r.html", atlas, PictureStore(), **options))
    assert "8 of the 47" in page.words
    assert 'atlas.write_table("table.csv")' in page.words
    assert len(page.with_class("latent")) == 47
    assert len(page.with_class("heat")) == 8
    kinds = {attrs["id"] for tag, attrs in page.tags if tag == "button" and "id" in attrs and attrs.get("data-kind")}
    assert kinds == {"kind-invariant", "kind-180", "kind-mirror", "kind-none"}
    assert len(page.with_class("family")) == 1
    assert "25 of them" in page.words
    assert "1 smaller family" in page.words
    for table in ("atlas/table.csv", "table.csv"):
        atlas.write_table(tmp_path / table)
        page = read(write_report(tmp_path / "r.html", atlas, PictureStore(), **options))
        assert any(attrs.get("href") == table for _, attrs in page.tags)


def test_full_size_stays_under_ten_megabytes(tmp_path: Path) -> None:
    atlas = shape_atlas("D32", {"line": 16, "curve": 24, "spiral": 24}, top=8)

    class Noise(PictureStore):
        def patch(self, i: int, element: int = 0, size: int | None = None):
            small = torch.randint(0, 256, (8, 8, 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
            return small.numpy()

    path = write_report(tmp_path / "r.html", atlas, Noise())
    # 256 cards, the default cap, are four times these. A patch as smooth as this costs what a photograph does.
    assert 1e6 < path.stat().st_size < 2.5e6


def test_unknown_values_show_as_a_dash(tmp_path: Path, atlas) -> None:
    broken = dataclasses.replace(atlas, autocorrelation=atlas.autocorrelation.clone().fill_(float("nan")))
    metrics = {"fvu": None, "l0": float("nan"), "fvu_per_block": [None] * 32}
    page = read(write_report(tmp_path / "r.html", broken, metrics=metrics))
    assert "nan" not in page.words.lower().split()


def test_baseline_table_and_verdict(tmp_path: Path, atlas) -> None:
    rows = [
        {"Dictionary": "crosscoder", "FVU": 0.1, "Families": 5, "verdict": "The crosscoder wins."},
        {"Dictionary": "SAE", "FVU": 0.25, "Families": None},
    ]
    words = read(write_report(tmp_path / "r.html", atlas, baseline=rows)).words
    assert words.index("The crosscoder wins.") < words.index("crosscoder 0.100 5 SAE 0.250 —")


@pytest.mark.parametrize("name", ["max_latents", "max_families", "max_latents_per_family", "max_patches"])
def test_bad_limits_are_named(tmp_path: Path, atlas, name: str) -> None:
    with pytest.raises(ArgumentError, match=name):
        write_report(tmp_path / "r.html", atlas, **{name: -1})
    assert list(tmp_path.iterdir()) == []


def test_a_large_family_shows_some_members_and_says_how_many_not(tmp_path: Path) -> None:
    atlas = shape_atlas("D8", {"curve": 6}, top=1)
    page = read(write_report(tmp_path / "r.html", atlas, PictureStore(), max_latents_per_family=4))
    assert "6 of its 8" in page.words
    assert "2 of them" in page.words


def test_from_a_real_store(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=2, padding=2), torch.nn.ReLU())
    images = torch.rand(3, 3, 65, 65)
    store = harvest(net, "1", images, group="D4", positions="random:8", progress=False)
    crosscoder = GroupCrosscoder(CrosscoderConfig(group="D4", d_in=6, n_latents=5, k=2))
    page = read(write_report(tmp_path / "r.html", analyze(crosscoder, store, top=3), store))
    assert "Images 3 Examples 24 Latents 5" in page.words
    assert page.with_class("patch")
    assert page.with_class("plot")


def test_the_clearest_latents_of_a_kind_come_first(tmp_path: Path) -> None:
    """By the share of power that changes: most first, for invariant latents least first; faint ones are said to be."""
    atlas = shape_atlas()
    modulation = torch.linspace(0.05, 0.6, atlas.n_latents)
    spectrum = atlas.spectrum.clone()
    spectrum[:, 0] = 1 - modulation
    atlas = dataclasses.replace(atlas, spectrum=spectrum)
    text = drawn(write_report(tmp_path / "page.html", atlas).read_text(encoding="utf-8"))
    order = [int(number) for number in re.findall(r'<details class="latent [^"]*" id="latent-(\d+)"', text)]
    assert len(order) == atlas.n_latents
    for kind in set(atlas.kinds):
        shown = [latent for latent in order if atlas.kinds[latent] == kind]
        assert shown == sorted(shown, reverse=kind != "invariant")
    for latent in order:
        card = text.split(f'id="latent-{latent}"')[1].split("</summary>")[0]
        assert ("Faintly: only" in card) == (atlas.kinds[latent] != "invariant" and bool(modulation[latent] < 0.15))


def test_orbits_of_something_else_are_refused(tmp_path: Path) -> None:
    """Else patches of images that the latents never saw would be shown."""
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 6, 5, stride=2, padding=2), torch.nn.ReLU())
    images = torch.rand(3, 3, 65, 65, generator=torch.Generator().manual_seed(0))
    stores = {
        (name, n): harvest(net, "1", images[:n], group=name, positions="random:8", progress=False)
        for name, n in (("D4", 3), ("D4", 2), ("C4", 3))
    }
    crosscoder = GroupCrosscoder(CrosscoderConfig(group="D4", d_in=6, n_latents=5, k=2))
    atlas = analyze(crosscoder, stores["D4", 3], top=3)
    for wrong, message in ((("D4", 2), "the 24 examples .*; got 16"), (("C4", 3), "under D4.*; got orbits under C4")):
        with pytest.raises(ArgumentError, match=f"orbits: expected .*{message}"):
            write_report(tmp_path / "r.html", atlas, stores[wrong])
    assert not (tmp_path / "r.html").exists()
