"""Writes the page: gathers what to show, renders the templates, puts the file in place in one rename."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup

from groupcc import __version__
from groupcc.analysis import Atlas
from groupcc.analysis.numbers import count_noun, shown, two_decimals
from groupcc.data import Orbits
from groupcc.errors import argument_error, is_whole
from groupcc.files import atomic_write
from groupcc.groups.planar import format_degrees
from groupcc.report.guide import Guide
from groupcc.report.part import Page, environment
from groupcc.report.parts import page_parts
from groupcc.report.pictures import PatchBook, PatchSource
from groupcc.report.reader import Reader
from groupcc.report.svg import scale_css
from groupcc.report.words import headline

if TYPE_CHECKING:
    from groupcc.causal import CausalCheck
    from groupcc.visualization import Visualization

__all__ = ["write_report"]

TABLES = ("table.csv", "atlas/table.csv")
"""Where the full table may lie beside the page."""

ASSETS = {".js": ("theme", "figures", "map", "list"), ".css": ("base", "latents", "media")}
"""Files that make the page's script and its style."""

TERMS = {
    "invariant": "invariant",
    "90": "4-fold",
    "180": "2-fold",
    "other-rotation": "n-fold",
    "mirror": "equivariant",
    "none": "equivariant",
}
"""What each kind is called in group theory."""


def write_report(
    path: str | Path,
    atlas: Atlas,
    orbits: Orbits | PatchSource | torch.Tensor | None = None,
    *,
    title: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    baseline: Sequence[Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    visualization: Visualization | None = None,
    causal: CausalCheck | None = None,
    max_latents: int = 256,
    max_families: int = 64,
    max_latents_per_family: int = 32,
    max_patches: int = 8,
) -> Path:
    """Writes `atlas` as one HTML file that stands alone: no network, no scripts or fonts from elsewhere.

    Args:
        path: the file; parent directories are made. It is replaced in one rename, so an error leaves an old file as
            it was.
        atlas: what `groupcc.analyze` returns.
        orbits: the `OrbitStore` that `atlas.top_examples` refers to, for the patches; without it there are none.
        title: the page's heading; model and layer by default.
        metrics: shown with `atlas.metrics` and before it where both have a key. Keys it knows: `fvu`, `l0`,
            `dead_fraction`, `n_examples`, `fvu_per_block` (a number for each element of the group).
        baseline: rows of the comparison with a plain SAE, one mapping each: column name → value. The value of the
            key `verdict` is a sentence, shown above the table; that of `report` the address of the row's own report.
        provenance: what was analysed. `model`, `layer`, `n_images`, `n_examples` also go in the heading; every other
            key is listed at the end.
        visualization: what `groupcc.visualize` returned for some of the latents, shown on their cards.
        causal: what `groupcc.causal_check` returned for this atlas, or `CausalCheck.load` read: shown on the cards of
            the families that it checked (of a tied crosscoder of the base latents), and summed up at the top.
        max_latents: latents that get patches and a block map, which make the file large; every live latent has its
            card. They are taken from every kind in turn, most often active first, and the page says how many.
        max_families, max_latents_per_family: families shown (largest first), members shown in each (evenly over the
            poses).
        max_patches: most activating patches of a latent.

    Returns:
        The path written. Equal input gives an equal file. 64 latents of D16 with patches are about 1.5 MB.

    Raises:
        ArgumentError: a limit that is not a whole number ≥ 0 (`max_latents` and `max_latents_per_family`: ≥ 1);
            a `visualization` of latents that the atlas lacks; a `causal` check of other families or another crosscoder;
            `orbits` of another group or number than those analysed, whose patches would be of other images.
    """
    limits = {
        "max_latents": max_latents,
        "max_families": max_families,
        "max_latents_per_family": max_latents_per_family,
        "max_patches": max_patches,
    }
    _check_limits(limits)
    _check_orbits(atlas, orbits)
    path = Path(path)
    page = Page(
        reader=Reader(atlas),
        patches=PatchBook(atlas, orbits if max_patches else None),
        facts=_facts(atlas, orbits, provenance or {}),
        metrics={**(atlas.metrics or {}), **(metrics or {})},
        baseline=baseline or [],
        visualization=visualization,
        causal=causal,
        limits=limits,
        table=next((name for name in TABLES if (path.parent / name).is_file()), None),
    )
    page.parts += page_parts(page)
    # A file name that is not valid UTF-8 reaches Python as lone surrogates, which can't be written.
    atomic_write(path, _rendered(page, title).encode("utf-8", "replace"))
    return path


def _rendered(page: Page, title: str | None) -> str:
    atlas, script, style = page.reader.atlas, _asset(".js"), _asset(".css")
    return (
        environment()
        .get_template("report.html")
        .render(
            page=page,
            group=atlas.group,
            title=_default_title(page.facts) if title is None else title,
            subtitle=_subtitle(atlas, page.facts),
            headline=headline(atlas),
            terms=TERMS,
            guide=Guide.of(atlas.group),
            smallest_turn=format_degrees(360 / atlas.group.n),
            least_c=two_decimals(1 - atlas.tolerance),
            version=__version__,
            policy=_policy(script),
            style=Markup(style) + scale_css(),
            script=Markup(script),
        )
    )


def _check_limits(limits: Mapping[str, object]) -> None:
    for name, value in limits.items():
        least = 1 if name in ("max_latents", "max_latents_per_family") else 0
        if not is_whole(value, least):
            expected, remedy = f"a whole number, at least {least}", "Leave it out for the default."
            raise argument_error(name, expected=expected, got=value, remedy=remedy)


def _check_orbits(atlas: Atlas, orbits: Orbits | PatchSource | torch.Tensor | None) -> None:
    if orbits is None:
        return
    own_group = getattr(orbits, "group", None)
    analysed = (atlas.metrics or {}).get("n_examples")
    if own_group is not None and own_group != atlas.group:
        expected, got = f"orbits under {atlas.group}, the atlas's group", f"orbits under {own_group}"
    elif own_group is not None and analysed is not None and analysed != len(orbits):
        expected, got = f"the {analysed} examples that the atlas was made with", f"{len(orbits)} examples"
    else:
        return
    remedy = "Give the store that was analysed, or none, for a page without patches."
    raise argument_error("orbits", expected=expected, got=got, remedy=remedy)


@lru_cache
def _asset(suffix: str) -> str:
    """Returns the page's script (in a scope of its own) or its style, from its files."""
    folder = files("groupcc.report").joinpath("assets")
    text = "".join(folder.joinpath(name + suffix).read_text(encoding="utf-8") for name in ASSETS[suffix])
    return f'(function () {{\n"use strict";\n{text}}})();\n' if suffix == ".js" else text


def _policy(script: str) -> str:
    """Returns a Content-Security-Policy under which the page can't reach the network, whatever text is in it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _facts(
    atlas: Atlas, orbits: Orbits | PatchSource | torch.Tensor | None, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the provenance. The store and the atlas complete it if it is silent."""
    facts = dict(provenance)
    if orbits is not None:
        names = getattr(orbits, "image_names", None)
        of_store = {
            "model": getattr(orbits, "model_name", None),
            "layer": getattr(orbits, "layer", None),
            "n_images": None if names is None else len(names),
            "n_examples": len(orbits),
        }
        facts |= {key: value for key, value in of_store.items() if value is not None and key not in facts}
    return {**facts, "group": facts.get("group", atlas.group.name)}


def _default_title(facts: Mapping[str, Any]) -> str:
    where = " of ".join(str(facts[key]) for key in ("layer", "model") if facts.get(key))
    return f"Symmetries in {where}" if where else "Symmetry report"


def _subtitle(atlas: Atlas, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the (label, value) pairs under the heading."""
    group = atlas.group
    what = count_noun(group.n, "turn") + (
        f" and {count_noun(group.n, 'mirroring')}" if group.kind == "dihedral" else ""
    )
    pairs = [
        ("Model", facts.get("model")),
        ("Layer", facts.get("layer")),
        ("Group", f"{group.name}, {what}"),
        ("Images", facts.get("n_images")),
        ("Examples", facts.get("n_examples")),
        ("Base latents" if atlas.has_poses else "Latents", atlas.n_latents),
    ]
    return [(label, shown(value)) for label, value in pairs if value is not None]
