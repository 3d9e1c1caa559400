"""Dictionaries of known shapes, and a store of made-up pictures, for the tests of the report."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch

from groupcc.analysis import Families, analyze
from groupcc.analysis.atlas import Atlas
from groupcc.analysis.evidence.activity import TopExamples
from groupcc.causal import FamilyEffect
from groupcc.causal.verdict import Verdict
from groupcc.groups import Group, group
from groupcc.models import CrosscoderConfig, GroupCrosscoder

SHARES = {
    "circle": {0: 1.0},
    "cross": {0: 0.2, 4: 0.8},
    "line": {0: 0.1, 2: 0.6, 4: 0.3},
    "curve": {0: 0.2, 1: 0.3, 2: 0.3, 3: 0.2},
    "edge": {1: 0.7, 3: 0.3},
    "spiral": {1: 0.3, 2: 0.3, 3: 0.25, 4: 0.15},
}
"""Share of power of each shape at each angular frequency."""

PHASES = {1: 0.45, 2: 1.8, 3: 4.05, 4: 7.2}
"""Phases that leave the spiral no mirror line."""


def shape_blocks(shape: str, G: Group, width: int, seed: int) -> np.ndarray:
    """Decoder blocks d_g = M ρ(g) v, [G, width]: a latent with the shape's symmetry, its mirror line (if any) vertical
    or horizontal."""
    parts = []
    for irrep in G.irreps():
        share = SHARES[shape].get(irrep.frequency, 0.0)
        if share and irrep.dim == 2:
            phase = PHASES[irrep.frequency] if shape == "spiral" else 0.0
            parts.append(irrep.matrices @ np.array([math.cos(phase), math.sin(phase)]) * math.sqrt(share))
        elif share and not irrep.name.endswith("'"):
            parts.append(irrep.matrices[:, :, 0] * math.sqrt(share))
    flat = np.concatenate([part.reshape(G.order, -1) for part in parts], axis=1)
    mix = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))[0][: flat.shape[1]]
    return flat @ mix


def shape_atlas(
    group_name: str = "D16", counts: dict[str, int] | None = None, *, dead: int = 0, top: int = 0, width: int = 24
) -> Atlas:
    """The atlas of `counts` latents of each shape, turned by successive elements (circles: unrelated ones), and `dead`
    latents. With `top`, that many made-up top examples and frequencies for each live latent."""
    G = group(group_name)
    counts = {"circle": 2, "line": 4, "curve": 5, "spiral": 3} if counts is None else counts
    blocks = []
    for seed, (shape, count) in enumerate(counts.items()):
        for i in range(count):
            if shape == "circle":
                blocks.append(shape_blocks(shape, G, width, 100 + i))
            else:
                blocks.append(shape_blocks(shape, G, width, seed)[G.right_translation[i % G.order]])
    blocks += [np.zeros((G.order, width))] * dead
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(group=group_name, d_in=width, n_latents=len(blocks), k=1, encoder="orbit", sparsity="topk")
    )
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.from_numpy(np.stack(blocks)))
    atlas = analyze(crosscoder, tolerance=0.15)
    if not top:
        return atlas
    rows = torch.arange(len(blocks))[:, None]
    indices = (rows * top + torch.arange(top)).where(rows < len(blocks) - dead, -1)
    acts = torch.linspace(3, 1, top).expand(len(blocks), -1)
    frequency = torch.linspace(0.01, 0.2, len(blocks)).where(~atlas.dead, 0.0)
    return replace(atlas, top_examples=TopExamples(indices, acts), frequency=frequency, mean_act=10 * frequency)


def repeated_atlas(times: int) -> Atlas:
    """The atlas of 40 latents `times` times over: what a large page costs does not lie in what its latents are."""
    one = shape_atlas("D16", {"line": 10, "curve": 15, "spiral": 15}, top=1)

    def repeat(values: torch.Tensor) -> torch.Tensor:
        return values.repeat((times, *[1] * (values.ndim - 1)))

    searched = ("poses", "turns", "mirrored", "similarity_to_reference")
    families = Families(
        labels=torch.cat([one.families.labels + i * len(one.families) for i in range(times)]),
        references=[reference + 40 * i for i in range(times) for reference in one.families.references],
        threshold=one.families.threshold,
        **{name: repeat(getattr(one.families, name)) for name in searched},
    )
    fields = ("autocorrelation", "block_norms", "spectrum", "dead", "similarities", "frequency", "mean_act")
    return replace(
        one,
        config=replace(one.config, n_latents=40 * times),
        stabilizers=one.stabilizers * times,
        families=families,
        top_examples=None,
        parts={},
        **{name: repeat(getattr(one, name)) for name in fields},
    )


def page_data(text: str) -> dict:
    """What a page's script draws latents from."""
    (block,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    return json.loads(block)


def drawn(text: str) -> str:
    """A page as it is with every latent's card drawn and opened, pictures in place; rings and bars are not drawn."""
    data = page_data(text)
    cards = "".join(
        f'<details class="latent k-{kind}" id="latent-{latent}"><summary>{row}</summary>{body}</details>'
        for latent, kind, row, body in zip(
            data["latents"], data["columns"]["kind"], data["rows"], data["bodies"], strict=True
        )
    )
    text = re.sub(r'<script type="application/json" id="data">.*?</script>', "", text, flags=re.DOTALL)
    text = text.replace('<div id="list"></div>', f'<div id="list">{cards}</div>')
    source = "data:image/jpeg;base64,{}".format
    return re.sub(r'data-patch="(\d+)"', lambda found: f'src="{source(data["patches"][int(found[1])])}"', text)


class PictureStore:
    """Stands in for an orbit store: a picture that tells the example and the element; `asked` records the calls."""

    def __init__(self, name: str = "camera.png", error: Exception | None = None) -> None:
        self.model_name, self.layer, self.image_names = "net", "mixed", [name, "b.png"]
        self.error = error
        self.asked: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return 1000

    def example(self, i: int) -> SimpleNamespace:
        return SimpleNamespace(image_id=0, name=self.image_names[0], xy=(12.4, 30.0))

    def patch(self, i: int, element: int = 0, size: int | None = None) -> np.ndarray:
        if self.error is not None:
            raise self.error
        self.asked.append((i, element))
        return np.full((21, 21, 3), (7 * i + 3 * element) % 256, dtype=np.uint8)


def tied_atlas(group_name: str = "D8", shapes: tuple[str, ...] = ("circle", "line", "curve", "spiral")) -> Atlas:
    """The atlas of a pose-tied crosscoder with one base latent for each shape and made-up pose counts: every pose of
    every latent fired 50 times, and one top example a latent, in pose 1 where there is one."""
    G, width = group(group_name), 24
    blocks = [shape_blocks(shape, G, width, seed) for seed, shape in enumerate(shapes)]
    crosscoder = GroupCrosscoder(
        CrosscoderConfig(group=group_name, d_in=width, n_latents=len(blocks), k=1, encoder="orbit", tied=True)
    )
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.from_numpy(np.stack(blocks)))
    atlas = analyze(crosscoder, tolerance=0.15)
    L = len(blocks)
    top = TopExamples(torch.arange(L)[:, None], torch.ones(L, 1), torch.full((L, 1), min(1, G.order - 1)))
    return replace(
        atlas,
        pose_counts=torch.full((L, G.order), 50),
        top_examples=top,
        frequency=torch.full((L,), 0.1),
        mean_act=torch.ones(L),
    )


def effect(family: int, verdict: Verdict, readout: str = "output") -> FamilyEffect:
    """Made-up scores of a causal check."""
    return FamilyEffect(
        family=family,
        latents=2,
        readout=readout,
        positions=30,
        similarity=0.9,
        effect=0.00455,
        reposed=0.481,
        measured=0.62,
        placed=0.2,
        turned=-0.04,
        unmoved=0.11,
        wrong=-0.0066,
        random=-1.03,
        reposed_error=0.17,
        pose_margin=0.281,
        pose_margin_error=0.09,
        margin=0.281,
        margin_error=0.1,
        verdict=verdict,
        reason="the score lies between 0.01 and 0.95" if verdict == "undecided" else None,
    )
