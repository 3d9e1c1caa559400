"""Writes the page: gathers what to show, renders the templates, puts the file in place in one rename."""

from __future__ import annotations

import base64
import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from groupcc import __version__
from groupcc.analysis.evidence.moved_activations import FEWEST_FIRINGS
from groupcc.errors import argument_error, is_whole
from groupcc.files import atomic_write
from groupcc.groups.algebra import format_degrees
from groupcc.report.cards import choices, data_block, page_order, sorts
from groupcc.report.dials import gap_rule
from groupcc.report.guide import annotated_ring, guide_group, guide_shapes
from groupcc.report.notes import overview_notes
from groupcc.analysis.numbers import count_noun, number, percent, shown, two_decimals
from groupcc.report.pictures import PatchBook
from groupcc.report.svg import block_plot, scale_css
from groupcc.report.used import Setting, used_by_family, used_overview
from groupcc.report.views import Reader, select_latents
from groupcc.report.visualized import visualized
from groupcc.report.words import family_sizes, headline, kinds_for

__all__ = ["write_report"]

_METRIC_WORDS = {
    "fvu": ("FVU", "share of the activations' variance that the dictionary misses; 0 is perfect"),
    "explained_variance": ("Explained variance", "1 − FVU"),
    "l0": ("L0", "latents active at once, on average"),
    "dead_fraction": ("Dead latents", "share of latents that none of these examples activates"),
    "n_examples": ("Examples", "image positions these figures were measured on"),
}
_TABLES = ("table.csv", "atlas/table.csv")
_ASSETS = {".js": ("theme", "figures", "map", "list"), ".css": ("base", "latents", "media")}
TERMS = {
    "invariant": "invariant",
    "90": "4-fold",
    "180": "2-fold",
    "other-rotation": "n-fold",
    "mirror": "equivariant",
    "none": "equivariant",
}
"""What each kind is called in group theory."""
DEAD_NAMED = 200
"""Dead latents whose numbers the page lists."""
_ICONS = {
    "invariant": "circle",
    "90": "cross",
    "180": "line",
    "other-rotation": "star",
    "mirror": "curve",
    "none": "spiral",
}
_PROVENANCE_WORDS = {
    "model": "Model",
    "layer": "Layer",
    "group": "Group",
    "n_images": "Images",
    "n_examples": "Examples",
}


def write_report(
    path: str | Path,
    atlas: Any,
    orbits: Any | None = None,
    *,
    title: str | None = None,
    metrics: Mapping[str, Any] | None = None,
    baseline: Sequence[Mapping[str, Any]] | None = None,
    provenance: Mapping[str, Any] | None = None,
    visualization: Any | None = None,
    causal: Any | None = None,
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
        "max_latents": (max_latents, 1),
        "max_families": (max_families, 0),
        "max_latents_per_family": (max_latents_per_family, 1),
        "max_patches": (max_patches, 0),
    }
    for name, (value, least) in limits.items():
        if not is_whole(value, least):
            raise argument_error(
                name, expected=f"a whole number, at least {least}", got=value, remedy="Leave it out for the default."
            )
    path = Path(path)
    _check_orbits(atlas, orbits)
    patches = PatchBook(atlas, orbits if max_patches else None)
    made = visualized(visualization, int(atlas.n_latents), patches)
    used = used_by_family(causal, atlas)
    reader = Reader(atlas, patches, max_patches=max_patches, visualized=made, used=used)
    detailed = set(select_latents(reader.kinds, reader.frequency, max_latents))
    families = reader.families(limit=max_families, max_members=max_latents_per_family)
    linked = {family.family for family in families}
    ordered = page_order(reader)
    views = [reader.latent(latent, linked, detailed=latent in detailed) for latent in ordered]
    facts = _facts(atlas, orbits, provenance)
    counts = Counter(reader.kinds)
    kinds = kinds_for(atlas.group, set(counts))
    measured = {**(atlas.metrics or {}), **(metrics or {})}
    script, style = _assets(".js"), _assets(".css")
    drawn = {
        "group": atlas.group,
        "icon_names": _ICONS,
        "tied": reader.tied,
        "smallest_turn": format_degrees(360 / atlas.group.n),
    }
    page = (
        _environment()
        .get_template("report.html")
        .render(
            **drawn,
            title=title if title is not None else _default_title(facts),
            version=__version__,
            policy=_policy(script),
            style=Markup(style) + scale_css(),
            script=Markup(script),
            data=data_block(_environment(), reader, views, {kind.key: kind.title for kind in kinds}, drawn),
            sorts=sorts(reader.table, ordered),
            choices=choices(reader.table, ordered),
            subtitle=_subtitle(atlas, facts),
            headline=headline(atlas),
            used=used_overview(used, reader.tied),
            checked=Setting.of(causal, atlas.group),
            kinds=[(kind, counts[kind.key]) for kind in kinds],
            live=len(ordered),
            terms=TERMS,
            evidence=any("near_miss" in row for row in reader.table[:1]),
            activations_on=getattr(atlas.evidence, "activations_on", None),
            fewest_firings=FEWEST_FIRINGS,
            notes=overview_notes(reader.table),
            has_map=any(row.get("map_x") is not None for row in reader.table),
            dead=[latent for latent, kind in enumerate(reader.kinds) if kind == "dead"][:DEAD_NAMED],
            families=families,
            families_left_out=len(family_sizes(atlas)) - len(families),
            n_detailed=len(detailed),
            table=next((name for name in _TABLES if (path.parent / name).is_file()), None),
            residual=reader.residual_share is not None,
            has_dials=any(view.dial is not None for view in views),
            gap_rule=gap_rule(),
            guide=guide_shapes(guide_group(atlas.group)),
            guide_name=guide_group(atlas.group).name,
            annotated=annotated_ring(guide_group(atlas.group)),
            has_patches=bool(patches),
            tolerance=_limit(atlas, "tolerance"),
            family_threshold=_limit(atlas.families, "threshold"),
            has_frequency=reader.frequency is not None,
            has_modulation=reader.modulation is not None,
            metrics=_metric_rows(measured),
            block_plot=_block_plot(measured, atlas.group),
            baseline=_baseline(baseline),
            provenance=_provenance_rows(facts),
        )
    )
    # A file name that is not valid UTF-8 reaches Python as lone surrogates, which can't be written.
    atomic_write(path, page.encode("utf-8", "replace"))
    return path


def _check_orbits(atlas: Any, orbits: Any | None) -> None:
    own_group = getattr(orbits, "group", None)
    analysed = (getattr(atlas, "metrics", None) or {}).get("n_examples")
    if own_group is not None and own_group != atlas.group:
        expected, got = f"orbits under {atlas.group}, the atlas's group", f"orbits under {own_group}"
    elif own_group is not None and analysed is not None and analysed != len(orbits):  # type: ignore[arg-type]
        expected, got = f"the {analysed} examples that the atlas was made with", f"{len(orbits)} examples"  # type: ignore[arg-type]
    else:
        return
    remedy = "Give the store that was analysed, or none, for a page without patches."
    raise argument_error("orbits", expected=expected, got=got, remedy=remedy)


@lru_cache
def _assets(suffix: str) -> str:
    """The page's script (in a scope of its own) or its style, from its files."""
    found = files("groupcc.report").joinpath("assets")
    parts = [found.joinpath(name + suffix).read_text(encoding="utf-8") for name in _ASSETS[suffix]]
    text = "".join(parts)
    return f'(function () {{\n"use strict";\n{text}}})();\n' if suffix == ".js" else text


@lru_cache(maxsize=1)
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("groupcc.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _limit(owner: Any, name: str) -> str:
    """A threshold that the analysis used, as text; empty where it does not say."""
    value = getattr(owner, name, None)
    return "" if value is None else two_decimals(1 - value if name == "tolerance" else value)


def _policy(script: str) -> str:
    """A Content-Security-Policy under which the page can't reach the network, whatever text is in it."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def _facts(atlas: Any, orbits: Any | None, provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Provenance, completed from the store and the atlas where it is silent."""
    facts = dict(provenance or {})
    if orbits is not None:
        found = {"model": "model_name", "layer": "layer", "n_images": "image_names"}
        for key, attribute in found.items():
            value = getattr(orbits, attribute, None)
            if value is not None:
                facts.setdefault(key, len(value) if key == "n_images" else value)
        if hasattr(orbits, "__len__"):
            facts.setdefault("n_examples", len(orbits))
    facts.setdefault("group", atlas.group.name)
    return facts


def _default_title(facts: Mapping[str, Any]) -> str:
    where = " of ".join(str(facts[key]) for key in ("layer", "model") if facts.get(key))
    return f"Symmetries in {where}" if where else "Symmetry report"


def _subtitle(atlas: Any, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(label, value) pairs under the heading."""
    group = atlas.group
    what = count_noun(group.n, "turn") + (
        f" and {count_noun(group.n, 'mirroring')}" if group.kind == "dihedral" else ""
    )
    pairs = [("Model", facts.get("model")), ("Layer", facts.get("layer")), ("Group", f"{group.name}, {what}")]
    pairs += [
        ("Images", facts.get("n_images")),
        ("Examples", facts.get("n_examples")),
        ("Latents" if atlas.duplicates is None else "Base latents", int(atlas.n_latents)),
    ]
    return [(label, shown(value)) for label, value in pairs if value is not None]


def _metric_rows(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(name, value, what it means)."""
    rows = []
    for key, (label, meaning) in _METRIC_WORDS.items():
        value = measured.get(key)
        if value is None and key == "explained_variance" and measured.get("fvu") is not None:
            value = 1 - float(measured["fvu"])
        if value is not None:
            rows.append((label, percent(value) if key == "dead_fraction" else shown(value), meaning))
    for key, value in measured.items():
        if key not in _METRIC_WORDS and key != "fvu_per_block" and not isinstance(value, (list, tuple, dict)):
            rows.append((str(key), shown(value), ""))
    return rows


def _block_plot(measured: Mapping[str, Any], group: Any) -> Markup | None:
    values = measured.get("fvu_per_block")
    if values is None or len(values) != group.order:
        return None
    values = np.array([math.nan if v is None else float(v) for v in values])
    if not np.isfinite(values).any():
        return None
    label = f"FVU of each block, {number(float(np.nanmean(values)))} on average"
    return block_plot(values.tolist(), group, label)


def _baseline(rows: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    if not rows:
        return None
    columns = list(dict.fromkeys(str(key) for row in rows for key in row if key not in ("verdict", "report")))
    by_name = [{str(key): value for key, value in row.items()} for row in rows]
    return {
        "columns": columns,
        "rows": [(row.get("report"), [shown(row.get(column)) for column in columns]) for row in by_name],
        "verdicts": list(dict.fromkeys(str(row["verdict"]) for row in by_name if row.get("verdict"))),
    }


def _provenance_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        label = _PROVENANCE_WORDS.get(str(key), str(key).replace("_", " "))
        if isinstance(value, Mapping):
            rows += [(f"{label}: {inner}", shown(item)) for inner, item in value.items()]
        elif value is not None:
            rows.append((label, shown(value)))
    return rows
