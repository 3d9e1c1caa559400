"""What the crosscoder adds to a plain sparse autoencoder, and tying its poses to the crosscoder: rows and sentences."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from groupcc.analysis import Atlas
from groupcc.data import Orbits
from groupcc.data.splits import split_by_image
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.training import TrainConfig, evaluate
from groupcc.training.metrics import read_metrics

__all__ = ["comparison", "training_seconds"]

L0_SLACK = 0.05
"""Relative difference up to which two L0 are called equal."""


def comparison(
    dictionaries: dict[str, tuple[GroupCrosscoder, Atlas]],
    orbits: Orbits,
    settings: TrainConfig,
    seconds: Mapping[str, float] | None = None,
    held_out_orbits: Orbits | None = None,
) -> list[dict[str, Any]]:
    """Returns a row a dictionary, measured on the same held-out images: the crosscoder, the autoencoder, and perhaps a
    pose-tied crosscoder.

    The images are those of `held_out_orbits`, or those of `orbits` that the settings hold out. `verdict` in the first
    row and in the last. `seconds`: how long each was trained, with a column of its own; without it rows depend on
    nothing but the arguments.
    """
    training, held_out = split_by_image(orbits, settings.held_out, settings.seed)
    measured, indices = orbits, held_out if len(held_out) else training
    if held_out_orbits is not None:
        measured, indices = held_out_orbits, torch.arange(len(held_out_orbits))
    rows = []
    for name, (crosscoder, atlas) in dictionaries.items():
        metrics = evaluate(crosscoder, measured, indices=indices)
        live = [s for s in atlas.stabilizers if s.kind != "dead"]
        copies = _copies(crosscoder, atlas)
        rows.append(
            {
                "dictionary": name,
                "FVU, upright": _rounded(metrics["fvu_per_block"][0]),
                "FVU, all transforms": _rounded(metrics["fvu"]),
                "L0": round(metrics["l0"], 2),
                "parameters": sum(parameter.numel() for parameter in crosscoder.parameters()),
                **({} if seconds is None else {"training, s": round(seconds[name])}),
                "live latents": len(live),
                "with a symmetry": sum(s.order > 1 for s in live),
                "families of two or more": len(copies),
                "latents in them": sum(copies),
            }
        )
    config = next(iter(dictionaries.values()))[0].config
    rows[0] = {"verdict": _verdict(rows[0], rows[1], config), **rows[0]}
    for row, (crosscoder, _) in list(zip(rows, dictionaries.values(), strict=True))[1:]:
        if crosscoder.config.tied:
            row["verdict"] = _tied_verdict(rows[0], row, crosscoder)
    return rows


def _copies(crosscoder: GroupCrosscoder, atlas: Atlas) -> list[int]:
    """The size of each family of two or more: found by likeness, or given, |G|/|H| atoms for each live base latent."""
    if crosscoder.config.tied:
        G = crosscoder.group.order
        return [G // s.order for s in atlas.stabilizers if s.kind != "dead" and s.order < G]
    sizes = [len(atlas.families.members(f)) for f in range(len(atlas.families.references))]
    return [size for size in sizes if size > 1]


def _verdict(crosscoder: dict[str, Any], sae: dict[str, Any], config: CrosscoderConfig) -> str:
    ours, theirs = crosscoder["FVU, all transforms"], sae["FVU, all transforms"]
    upright_ours, upright_theirs = crosscoder["FVU, upright"], sae["FVU, upright"]
    if None in (ours, theirs, upright_ours, upright_theirs):
        return "The held-out activations have no variance, so the two can't be compared."
    if abs(crosscoder["L0"] - sae["L0"]) <= L0_SLACK * max(crosscoder["L0"], sae["L0"]):
        terms = "At equal L0"
    else:
        terms = f"With {crosscoder['L0']:.1f} latents active on average, the autoencoder's {sae['L0']:.1f},"
    reads = (
        " The crosscoder's encoder reads the activations of all transforms, the autoencoder's the upright ones alone."
        if config.encoder == "orbit"
        else ""
    )
    what = "atoms, given by tying," if config.tied else "latents,"
    return (
        f"{terms} the crosscoder misses {ours:.1%} of the variance under all transforms, the plain autoencoder, its "
        f"blocks regressed, {theirs:.1%}; of the variance of the upright activations alone {upright_ours:.1%} against "
        f"{upright_theirs:.1%}.{reads} Rotated copies of one another: {crosscoder['latents in them']} of the "
        f"crosscoder's {what} in {crosscoder['families of two or more']} families; {sae['latents in them']} of the "
        f"autoencoder's, in {sae['families of two or more']}."
    )


def _tied_verdict(untied: dict[str, Any], tied: dict[str, Any], crosscoder: GroupCrosscoder) -> str:
    ours, theirs = tied["FVU, all transforms"], untied["FVU, all transforms"]
    if None in (ours, theirs):
        return "The held-out activations have no variance, so tying can't be judged."
    base = crosscoder.config.n_latents
    time = ""
    if "training, s" in tied:
        time = f"It was trained for {tied['training, s']:,} s, the untied one for {untied['training, s']:,} s; "
    return (
        f"With its poses tied, a dictionary of {base} base latents ({crosscoder.config.n_atoms:,} atoms, "
        f"{tied['parameters']:,} parameters against {untied['parameters']:,}) misses {ours:.1%} of the variance under "
        f"all transforms at L0 {tied['L0']:.1f}, the untied one {theirs:.1%} at {untied['L0']:.1f}. {time}"
        f"{base - tied['live latents']} of its base latents are dead. Rotated copies are given, with their poses: "
        f"{tied['latents in them']} atoms, in {tied['families of two or more']} families; the untied one's are found: "
        f"{untied['latents in them']} latents, in {untied['families of two or more']}."
    )


def training_seconds(metrics_file: Path) -> float:
    """How long a run was trained, by its metrics.jsonl; the parts of one that was interrupted are added."""
    seconds = [record["seconds"] for record in read_metrics(metrics_file) if "seconds" in record]
    # Each start counts from 0 again.
    ends = [before for before, after in pairwise(seconds) if after < before]
    return float(sum(ends + seconds[-1:]))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
