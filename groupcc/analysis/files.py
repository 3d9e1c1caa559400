"""Atlas files: a directory of `atlas.json` and `atlas.safetensors`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from groupcc.analysis.atlas import PARTS, Atlas
from groupcc.analysis.evidence.activity import TopExamples
from groupcc.analysis.evidence.contribution import Contribution
from groupcc.analysis.evidence.evidence import Evidence
from groupcc.analysis.evidence.scaling import Scaling
from groupcc.analysis.evidence.tuning import Tuning
from groupcc.analysis.families.clustering import FAMILY_METHODS
from groupcc.analysis.families.families import Families, given_families
from groupcc.analysis.families.family_map import Embedding
from groupcc.analysis.symmetry.stabilizers import restore_stabilizer
from groupcc.errors import DataError
from groupcc.files import atomic_directory, read_json, save_tensors, sha256_file, write_json
from groupcc.groups import group
from groupcc.models import CrosscoderConfig

__all__ = ["load_atlas", "save_atlas"]

FORMAT = "groupcc-atlas"
FORMAT_VERSION = 1
JSON_FILE, TENSOR_FILE = "atlas.json", "atlas.safetensors"
COMPANIONS = ("table.csv", "table.json", "inputs.json")
"""What the command line writes beside them; saving again removes it, as it belongs to the atlas before."""


def save_atlas(atlas: Atlas, directory: Path) -> Path:
    """See [`Atlas.save`][groupcc.analysis.Atlas.save]."""
    with atomic_directory(directory, own=(JSON_FILE, TENSOR_FILE, *COMPANIONS)) as temporary:
        save_tensors(_tensors(atlas), temporary / TENSOR_FILE)
        write_json(
            temporary / JSON_FILE,
            {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "config": atlas.config.to_dict(),
                "crosscoder": atlas.crosscoder,
                "tolerance": atlas.tolerance,
                "family_threshold": atlas.families.threshold,
                "family_method": _searched(atlas).method,
                "references": _searched(atlas).references,
                "stabilizers": [
                    {"name": s.name, "label": s.label, "axis": s.axis, "score": s.score, "kind": s.kind}
                    | ({"broken": True} if s.broken else {})
                    for s in atlas.stabilizers
                ],
                "metrics": atlas.metrics,
                "tensors_sha256": sha256_file(temporary / TENSOR_FILE),
            },
        )
    return directory


def load_atlas(directory: Path) -> Atlas:
    """See [`Atlas.load`][groupcc.analysis.Atlas.load]."""
    try:
        values = read_json(directory / JSON_FILE)
        if values.get("format") != FORMAT or values.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{directory / JSON_FILE} is format {values.get('format')!r} version "
                f"{values.get('format_version')!r}; this groupcc reads {FORMAT!r} version {FORMAT_VERSION}. "
                "Run the analysis again."
            )
        if sha256_file(directory / TENSOR_FILE) != values["tensors_sha256"]:
            raise DataError(f"{directory / TENSOR_FILE} is damaged. Run the analysis again.")
        return _atlas(CrosscoderConfig.from_dict(values["config"]), values, load_file(directory / TENSOR_FILE))
    except (OSError, ValueError, KeyError, AttributeError, TypeError, SafetensorError) as error:
        raise DataError(f"{directory} holds no readable atlas ({error}). Run the analysis again.") from error


def _searched(atlas: Atlas) -> Families:
    """The families that were searched for. Those that are given follow from the stabilizers and have no file."""
    return atlas.families if atlas.duplicates is None else atlas.duplicates


def _tensors(atlas: Atlas) -> dict[str, torch.Tensor]:
    tensors = {
        "autocorrelation": atlas.autocorrelation,
        "block_norms": atlas.block_norms,
        "spectrum": atlas.spectrum,
        "dead": atlas.dead,
        "similarity": atlas.similarities,
        **_searched(atlas).tensors(),
    }
    optional = {
        "frequency": atlas.frequency,
        "mean_act": atlas.mean_act,
        "pose_counts": atlas.pose_counts,
        "residual_share": atlas.residual_share,
    }
    if atlas.top_examples is not None:
        top = atlas.top_examples
        optional |= {"top_indices": top.indices, "top_acts": top.acts, "top_poses": top.poses}
    for part in (getattr(atlas, name) for name in PARTS):
        optional |= {} if part is None else part.tensors()
    tensors |= {name: tensor for name, tensor in optional.items() if tensor is not None}
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _atlas(config: CrosscoderConfig, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Atlas:
    G = group(config.group)
    stabilizers = [restore_stabilizer(G, **fields) for fields in values["stabilizers"]]
    # An atlas of before there was another method has no name for it.
    method = values.get("family_method", FAMILY_METHODS[0])
    searched = Families.from_tensors(tensors, list(values["references"]), values["family_threshold"], method)
    top = None
    if "top_indices" in tensors:
        top = TopExamples(tensors["top_indices"], tensors["top_acts"], tensors.get("top_poses"))
    return Atlas(
        config=config,
        group=G,
        autocorrelation=tensors["autocorrelation"],
        block_norms=tensors["block_norms"],
        stabilizers=stabilizers,
        tolerance=values["tolerance"],
        families=given_families(G, stabilizers, searched.threshold) if config.tied else searched,
        spectrum=tensors["spectrum"],
        dead=tensors["dead"],
        similarities=tensors["similarity"],
        frequency=tensors.get("frequency"),
        mean_act=tensors.get("mean_act"),
        metrics=values["metrics"],
        top_examples=top,
        duplicates=searched if config.tied else None,
        pose_counts=tensors.get("pose_counts"),
        residual_share=tensors.get("residual_share"),
        scaling=Scaling.from_tensors(tensors),
        tuning=Tuning.from_tensors(tensors),
        embedding=Embedding.from_tensors(tensors),
        contribution=Contribution.from_tensors(tensors),
        evidence=Evidence.from_tensors(tensors, G, stabilizers, values["tolerance"]),
        crosscoder=values.get("crosscoder"),
    )
