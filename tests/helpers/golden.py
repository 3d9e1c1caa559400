"""The golden pages: two small reports in which every part of the page is there, and the words that a reader sees."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import torch

from groupcc.analysis import Atlas, analyze
from groupcc.causal import CausalCheck
from groupcc.groups import group
from groupcc.models.quality import Quality
from groupcc.report import summary, write_report
from groupcc.report.parts.causal import CONTROLS
from groupcc.visualization import Visualization
from helpers.dictionaries import reader
from helpers.report_samples import PictureStore, drawn, effect, shape_blocks, tied_atlas

GOLDEN = Path(__file__).parents[1] / "report" / "golden" / "page.txt"
REWRITE = "python tests/report/golden/rewrite.py"
LINES = {"p", "li", "h1", "h2", "h3", "tr", "dt", "dd", "dl", "div", "figure", "figcaption", "caption", "section"}
LINES |= {"header", "nav", "label", "button", "article", "details", "summary", "ul", "ol", "title", "main", "svg"}
"""Elements that start a line."""


class _Words(HTMLParser):
    """The words of a page, a line for each element of `LINES`; a picture is its text in brackets."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in ("style", "script")
        if tag in LINES:
            self.parts.append("\n")
        elif tag in ("td", "th", "option", "a", "span", "b"):
            self.parts.append(" ")
        given = dict(attrs)
        if tag == "img":
            self.parts.append(f"\n[{given['alt']}]")

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in ("style", "script")
        if tag in LINES:
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def visible_text(page: str) -> str:
    """Returns the words of a page, every card opened; without empty lines, and without the version."""
    lines = (" ".join(line.split()) for line in "".join(_Words(drawn(page)).parts).split("\n"))
    return re.sub(r"groupcc \d[\w.+]*", "groupcc (version)", "".join(f"{line}\n" for line in lines if line))


def planted_atlas() -> Atlas:
    """Fourteen latents of known shapes under D8, read on 600 examples of two latents each.

    Latents: a circle, a cross, two lines, three of eight curves, an edge, a spiral of each hand, a line without five of
    its blocks, nearly a circle; and two that are in no example: a shorter copy of a curve, and one of zeros.
    """
    G, width = group("D8"), 24
    turn = G.right_translation
    line, curve, spiral = (shape_blocks(shape, G, width, i) for i, shape in enumerate(("line", "curve", "spiral"), 2))
    broken = shape_blocks("line", G, width, 6)
    broken[[1, 5, 9, 12, 13]] = 0.0
    blocks = [shape_blocks("circle", G, width, 0), shape_blocks("cross", G, width, 1), line, line[turn[1]]]
    blocks += [curve, curve[turn[1]], curve[turn[3]], shape_blocks("edge", G, width, 5)]
    blocks += [spiral, spiral[turn[G.n + 3]], broken]
    blocks.append(shape_blocks("circle", G, width, 7) + 0.45 * shape_blocks("line", G, width, 7))
    W_LGD = torch.from_numpy(np.stack(blocks)).float()
    W_LGD /= W_LGD.flatten(1).norm(dim=1)[:, None, None]
    copy, zeros = 0.8 * W_LGD[5], torch.zeros_like(W_LGD[5])
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(0, len(W_LGD), (600, 2), generator=generator)
    acts_NGD = torch.einsum("nk,nkgd->ngd", 1 + torch.rand(600, 2, generator=generator), W_LGD[chosen])
    acts_NGD += 0.02 * torch.randn(acts_NGD.shape, generator=generator)
    crosscoder = reader(torch.cat([W_LGD, torch.stack([copy, zeros])]), "D8", k=3)
    return analyze(crosscoder, acts_NGD, tolerance=0.15, top=5, scaling=True, held_out=range(300, 600))


def untied_page(folder: Path) -> tuple[str, Atlas]:
    """Returns a page with families, evidence, patches, a causal check, pictures made, metrics and a comparison."""
    atlas = planted_atlas()
    silent = dict.fromkeys(("reposed", "measured", *CONTROLS, "reposed_error"))
    effects = [effect(0, "undecided"), effect(0, "no", "late.r"), effect(1, "yes"), effect(1, "place only", "late.r")]
    effects.append(replace(effect(2, "not read"), effect=0.0, **silent))
    pictures = torch.linspace(0, 1, 2 * 3 * 81).view(2, 3, 9, 9)
    page = write_report(
        folder / "untied.html",
        atlas,
        PictureStore(),
        metrics={"fvu": 0.1034, "l0": 3.0, "dead_fraction": 0.05, "fvu_per_block": [0.1] * 16, "own": "a word"},
        baseline=[
            {"dictionary": "group crosscoder", "FVU": 0.1, "families": 5, "verdict": "The crosscoder wins."},
            {"dictionary": "plain SAE", "FVU": 0.25, "families": None},
        ],
        provenance={"seed": 3, "encoder": "orbit"},
        visualization=Visualization([2, 0], pictures, torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0])),
        causal=CausalCheck(effects, ["90°", "m·90°"], 2, 20, str(atlas.crosscoder), atlas.families.fingerprint()),
        max_latents=6,
        max_families=2,
        max_latents_per_family=2,
        max_patches=4,
    )
    return page.read_text(encoding="utf-8"), atlas


def tied_page(folder: Path) -> tuple[str, Atlas]:
    """Returns a page of latents that have poses: dials, power that poses don't share, a shape learned twice."""
    atlas = tied_atlas("D8", ("circle", "line", "curve", "curve", "spiral", "edge"))
    counts = atlas.pose_counts.clone()
    counts[4], counts[5] = torch.arange(16) + 40, torch.tensor([500, 900, *[450] * 14])
    counts[4, 2:5] = 0
    counts[3] = 1
    duplicates = replace(
        atlas.duplicates,
        labels=torch.tensor([1, 2, 0, 0, 3, 4]),
        references=[2, 0, 1, 4, 5],
        poses=torch.tensor([0, 0, 0, 2, 0, 0]),
        turns=torch.tensor([0.0, 0.0, 0.0, 90.0, 0.0, 0.0]),
    )
    atlas = replace(
        atlas,
        config=replace(atlas.config, tied="residual"),
        pose_counts=counts,
        quality=Quality(0.82, 0.4, 0.5, 12.0, 5, 1),
        duplicates=duplicates,
        residual_share=torch.tensor([0.5, 0.02, 0.34, 0.04, 0.1, 0.06]),
    )
    check = CausalCheck([effect(0, "yes")], ["90°"], 5, 20, str(atlas.crosscoder), atlas.families.fingerprint())
    page = write_report(folder / "tied.html", atlas, PictureStore(), title="Poses", causal=check)
    return page.read_text(encoding="utf-8"), atlas


def golden_text(folder: Path) -> str:
    """Returns what the golden file holds: of each page its summary on the terminal and its words."""
    text = ""
    for name, make in (("untied", untied_page), ("tied", tied_page)):
        page, atlas = make(folder)
        text += f"##### {name}: summary\n{summary(atlas)}\n##### {name}: page\n{visible_text(page)}"
    return text
