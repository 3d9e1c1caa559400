"""The page in a browser: search, filters, order, keys, links, light and dark, print, speed, accessibility."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from groupcc.causal import CausalCheck
from groupcc.report import write_report
from helpers.browser import CHROMIUM, ask, axe
from helpers.report_samples import PictureStore, effect, shape_atlas, tied_atlas

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium or Chrome here")


@pytest.fixture(scope="module")
def atlas():
    shapes = {"circle": 4, "line": 20, "curve": 25, "edge": 20, "spiral": 6}
    return shape_atlas("D16", shapes, dead=2, top=4)


@pytest.fixture(scope="module")
def page(atlas, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(tmp_path_factory.mktemp("page") / "r.html", atlas, PictureStore())


def test_the_list_in_pages(page: Path, tmp_path: Path) -> None:
    first, second, back, counts = ask(
        page,
        tmp_path,
        """const first = numbers(), counts = [count()];
        document.getElementById("next").click(); const second = numbers(); counts.push(count());
        document.getElementById("next").click(); document.getElementById("previous").click();
        return [first, second, numbers(), counts];""",
    )
    assert len(first) == 50
    assert sorted(first + second) == list(range(75))
    assert back == first
    assert counts == ["All 75 latents, 1–50 shown", "All 75 latents, 51–75 shown"]


def test_search_kinds_and_filters_are_all_held(page: Path, tmp_path: Path, atlas) -> None:
    found = ask(
        page,
        tmp_path,
        """const found = {};
        choose("#search", "line-like"); found.words = [numbers(), count()];
        choose("#search", "17"); found.number = numbers();
        choose("#search", "spiral mirror"); found.both = numbers();
        choose("#search", "no such thing"); found.none = [numbers(), document.getElementById("none").hidden];
        choose("#search", ""); document.getElementById("kind-mirror").click(); found.kind = [count(),
          document.getElementById("about-mirror").hidden, document.getElementById("about-180").hidden,
          document.getElementById("kind-mirror").getAttribute("aria-pressed")];
        choose("#search", "edge-like"); found.edges = numbers();
        choose("select[name=stabilizer]", "D2"); found.empty = numbers();
        document.getElementById("search").focus(); press("Escape"); found.cleared = count();
        choose("select[name=stabilizer]", "D2"); found.filter = numbers();
        return found;""",
    )
    lines = list(range(4, 24))
    assert sorted(found["words"][0]) == lines
    assert found["words"][1] == "20 of 75 latents"
    assert found["number"] == [17]
    assert sorted(found["both"]) == list(range(69, 75))
    assert found["none"] == [[], False]
    assert found["kind"] == ["45 of 75 latents", False, True, "true"]
    assert sorted(found["edges"]) == list(range(49, 69))
    assert found["empty"] == []
    assert found["cleared"] == "All 75 latents, 1–50 shown"
    assert sorted(found["filter"]) == lines


def test_order(page: Path, tmp_path: Path, atlas) -> None:
    often, numbered, axes = ask(
        page,
        tmp_path,
        """choose("#sort", "frequency down"); const often = numbers();
        choose("#sort", "latent up"); const numbered = numbers();
        choose("#sort", "axis_degrees up"); document.getElementById("next").click();
        return [often, numbered, numbers()];""",
    )
    assert often == atlas.frequency[:75].argsort(descending=True)[:50].tolist()
    assert numbered == list(range(50))
    without = {latent for latent in range(75) if atlas.stabilizers[latent].axis is None}
    assert set(axes[-len(without) :]) == without, "latents without a mirror line come last"


def test_a_link_opens_its_latent_wherever_it_is(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """const found = {};
        choose("#search", "circle");
        location.hash = "#latent-70"; await new Promise((done) => setTimeout(done, 200));
        const card = document.getElementById("latent-70");
        found.open = card.open; found.focus = document.activeElement === card.firstElementChild;
        found.parts =
          ["evidence", "f-ring", "f-map", "f-bars", "seen"].filter((name) => card.querySelector("." + name));
        found.cells = card.querySelectorAll(".ring.large path").length;
        found.bars = [...card.querySelectorAll("[data-bars] path")].filter((p) => p.getAttribute("d")).length;
        found.blank = [...document.images].filter((image) => !image.src.startsWith("data:image/")).length;
        found.rows = card.querySelectorAll(".all-numbers tr").length;
        found.search = document.getElementById("search").value;
        location.hash = "#kind-180"; await new Promise((done) => setTimeout(done, 200));
        found.count = count();
        return found;""",
    )
    assert found["open"]
    assert found["focus"]
    assert found["parts"] == ["evidence", "f-ring", "f-map", "f-bars", "seen"]
    assert found["cells"] > 3
    assert found["bars"] == 3, "norms of turns and of mirrorings, and the spectrum"
    assert found["blank"] == 0
    assert found["rows"] > 10
    assert found["search"] == ""
    assert found["count"] == "20 of 75 latents"


def test_keys(page: Path, tmp_path: Path) -> None:
    found = ask(
        page,
        tmp_path,
        """const at = () => document.activeElement.closest("details")?.id;
        const found = [], order = numbers();
        press("j"); found.push(at()); press("j"); press("j"); press("k"); found.push(at());
        press("n"); found.push(at()); press("k"); found.push(at());
        press("/"); found.push(document.activeElement.id);
        press("j"); found.push(document.activeElement.id);
        press("Escape"); press("t"); found.push(document.documentElement.dataset.theme);
        press("t"); found.push(document.documentElement.dataset.theme);
        return [found, order];""",
    )
    order = found[1]
    at = [f"latent-{order[0]}", f"latent-{order[1]}"]
    assert found[0][:2] == at
    assert found[0][2] not in {f"latent-{latent}" for latent in order}
    assert found[0][3] == at[0]
    assert found[0][4:] == ["search", "search", "dark", "light"]


def test_light_and_dark_by_the_system_and_by_the_button(page: Path, tmp_path: Path) -> None:
    script = """const button = document.getElementById("theme");
    const paper = () => [getComputedStyle(document.body).backgroundColor, button.textContent];
    const found = paper(); button.click(); return found.concat(paper());"""
    light, dark = "rgb(250, 249, 246)", "rgb(20, 23, 26)"
    assert ask(page, tmp_path, script) == [light, "Dark page", dark, "Light page"]
    assert ask(page, tmp_path, script, "--blink-settings=preferredColorScheme=0") == [
        dark,
        "Light page",
        light,
        "Dark page",
    ]


def test_nothing_alive_and_one_alone(tmp_path: Path) -> None:
    for name, atlas in (("none", shape_atlas("D4", {}, dead=3)), ("one", shape_atlas("C1", {"circle": 1}))):
        page = write_report(tmp_path / f"{name}.html", atlas)
        script = 'return [document.querySelectorAll("#list details").length, document.getElementById("theme").hidden]'
        assert ask(page, tmp_path, script) == [int(name == "one"), False]


@pytest.mark.skipif(axe() is None, reason="no axe-core: `make test` installs it, or set AXE_CORE to its axe.min.js")
@pytest.mark.parametrize("tied", [False, True])
def test_axe_finds_no_fault(tied: bool, tmp_path: Path) -> None:
    """With everything opened, light and dark."""
    library = axe()
    assert library is not None
    if tied:
        atlas = tied_atlas()
        atlas.pose_counts[3, 2:5] = 0
        duplicates = dataclasses.replace(atlas.duplicates, labels=torch.tensor([0, 1, 2, 1]), references=[0, 1, 2])
        atlas = dataclasses.replace(atlas, duplicates=duplicates)
    else:
        shapes = {"circle": 1, "cross": 1, "line": 1, "curve": 1, "edge": 2, "spiral": 1}
        atlas = shape_atlas("D8", shapes, dead=1, top=4)
    page = write_report(
        tmp_path / "r.html",
        atlas,
        PictureStore(),
        metrics={"fvu": 0.1, "fvu_per_block": [0.1] * 16},
        baseline=[{"dictionary": "one", "FVU": 0.1, "verdict": "It wins."}],
        causal=CausalCheck(
            [effect(0, "yes"), effect(0, "no", "late"), effect(1, "undecided"), effect(1, "place only", "late")],
            ["90°", "180°"],
            5,
            20,
            crosscoder=atlas.crosscoder,
            families=atlas.families.fingerprint(),
        ),
    )
    violations, opened = ask(
        page,
        tmp_path,
        """const open = () => document.querySelectorAll("details").forEach((part) => { part.open = true; });
        open(); await new Promise((done) => setTimeout(done, 300)); open();
        const found = [];
        for (const theme of ["light", "dark"]) {
          document.documentElement.dataset.theme = theme;
          const {violations} = await axe.run(document, {resultTypes: ["violations"]});
          const places = (v) => v.nodes.slice(0, 3).map((node) => node.html.slice(0, 200));
          found.push(...violations.map((v) => [theme, v.id, v.impact, places(v)]));
        }
        return [found, document.querySelectorAll("#list .evidence").length];""",
        library=library.read_text(encoding="utf-8"),
    )
    assert opened == (4 if tied else 7)
    assert violations == []
