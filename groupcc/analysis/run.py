"""analyze: transform block analysis of a trained crosscoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.evidence.activity import measure_activity
from groupcc.analysis.evidence.evidence import EVIDENCE_EXAMPLES, measure_evidence
from groupcc.analysis.evidence.scaling import measure_scaling
from groupcc.analysis.evidence.tuning import measure_tuning
from groupcc.analysis.families.clustering import FamilyMethod, check_family_method
from groupcc.analysis.families.families import FAMILY_THRESHOLD, find_families, given_families
from groupcc.analysis.families.family_map import EmbeddingMethod, check_embedding, embed
from groupcc.analysis.families.mirrors import mirror_floor
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, find_neighbours
from groupcc.analysis.symmetry.autocorrelation import autocorrelation
from groupcc.analysis.symmetry.blocks import block_norms, block_similarity, check_decoder, check_weights, latent_step
from groupcc.analysis.symmetry.broken import find_broken
from groupcc.analysis.symmetry.spectrum import spectrum
from groupcc.analysis.symmetry.stabilizers import find_stabilizers
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance
from groupcc.data import as_orbits
from groupcc.errors import argument_error, is_whole

if TYPE_CHECKING:
    from groupcc.models import GroupCrosscoder

__all__ = ["analyze", "check_options"]


@torch.no_grad()
def analyze(
    crosscoder: GroupCrosscoder,
    orbits: Any = None,
    *,
    tolerance: float | Literal["auto"] = "auto",
    family_threshold: float = FAMILY_THRESHOLD,
    family_method: FamilyMethod = "star",
    embedding: EmbeddingMethod = "pca",
    top: int = 8,
    batch_size: int = 1024,
    scaling: bool = False,
    held_out: Any = None,
    control: Any = None,
    evidence_examples: int = EVIDENCE_EXAMPLES,
    progress: bool = False,
) -> Atlas:
    """Reads each latent's symmetry from its decoder blocks, and with `orbits` what it responds to.

    - `orbits`: a store, or a tensor [M, G, D]; None analyses the weights alone. Latents that never fire on them count
      as dead, as do latents with a decoder of zeros. Spare ones, which fire and explain next to nothing
      (`Contribution`), are in no family and have no say in the tolerance.
    - `tolerance`: a stabilizer's elements have C ≥ 1 − tolerance; "auto" is `calibrate_tolerance`.
    - `family_threshold`: least similarity max_h cos(d_l, R_h d_ref) of a family's members to its reference.
    - `family_method`: how families are told apart, "star", "hdbscan" or "threshold"; see `find_families`.
    - `embedding`: how the family map is drawn (`Atlas.embedding`), "pca" or "umap"; see `embed`.
    - `top`: most activating examples kept for each latent; `batch_size`: orbits encoded at once.
    - `scaling`: whether to measure what the data has in each block (`Atlas.scaling`, see `measure_scaling`); needs
      `orbits`.
    - `held_out`: what the activations' estimate of the stabilizers is measured on: orbits, or indices of examples of
      `orbits`, that training has not seen. None finds those that `train` held out, where `orbits` are what it had
      (`crosscoder.provenance`), else takes all; `Evidence.activations_on` says what it was.
    - `control`: orbits of images that look alike at every angle, at the position of their centre; what their blocks
      differ by is interpolation's (`Atlas.evidence.null`, see `control_error`).
    - `evidence_examples`: orbits at most that stabilizers are tested on (`Atlas.evidence`); 0: weights alone.

    Latents of which some blocks are missing or weakened have the stabilizer of those that are there, and are marked
    (`Stabilizer.broken`, see `find_broken`).

    Of a tied crosscoder the latents are base latents. Their families are given; the search by `family_threshold` says
    which base latents have one shape (`Atlas.duplicates`).

    Reads `W_dec`, `W_enc`, `b_enc`, `config`, `group`, `provenance`, `encode`, `decode`, `fingerprint`, of a tied one
    `residual_share` too; changes nothing. Deterministic on the CPU.
    ArgumentError for NaN or infinite weights, naming them, and of the decoder the first such latent.
    """
    check_options(
        tolerance=tolerance,
        family_threshold=family_threshold,
        family_method=family_method,
        embedding=embedding,
        evidence_examples=evidence_examples,
    )
    if top < 1 or batch_size < 1:
        raise argument_error("top", expected="top and batch_size at least 1", got=(top, batch_size), remedy="Raise it.")
    if not isinstance(getattr(crosscoder, "W_dec", None), torch.Tensor):
        raise argument_error(
            "crosscoder",
            expected="a GroupCrosscoder",
            got=type(crosscoder).__name__,
            remedy="groupcc.GroupCrosscoder.from_pretrained(directory) reads one.",
        )
    if orbits is None and (scaling or held_out is not None):
        name = "scaling" if scaling else "held_out"
        remedy = "Pass orbits, or leave it out."
        raise argument_error(name, expected="orbits to measure it on", got="orbits=None", remedy=remedy)
    group = crosscoder.group
    W_dec_LGD = check_decoder(crosscoder.W_dec, group)
    check_weights(crosscoder)
    norms = block_norms(W_dec_LGD).cpu()
    dead = norms.amax(1) == 0
    activity = None
    if orbits is not None:
        activity = measure_activity(crosscoder, orbits, top=top, batch_size=batch_size, progress=progress)
        dead = dead | (activity.frequency == 0)
    left_out = dead if activity is None else dead | activity.contribution.spare
    C_LG = autocorrelation(W_dec_LGD, group).cpu()
    used = calibrate_tolerance(C_LG[~left_out], group) if tolerance == "auto" else float(tolerance)
    stabilizers, block_states = find_broken(
        W_dec_LGD,
        group,
        find_stabilizers(C_LG, group, used, dead),
        None if tolerance == "auto" else used,
        left_out,
    )
    # One search over all pairs, at the lowest floor that anything reads it at. Tied, chirality needs none.
    floors = [NEIGHBOUR_FLOOR, family_threshold, *([] if crosscoder.config.tied else [mirror_floor(family_threshold)])]
    graph = find_neighbours(W_dec_LGD, group, floor=min(floors), dead=dead)
    found = find_families(
        W_dec_LGD,
        group,
        threshold=family_threshold,
        dead=left_out,
        stabilizers=stabilizers,
        method=family_method,
        graph=graph,
    )
    evidence = measure_evidence(
        crosscoder,
        W_dec_LGD,
        C_LG,
        stabilizers,
        block_states,
        used,
        left_out=left_out,
        orbits=orbits,
        held_out=held_out,
        control=control,
        examples=evidence_examples,
        batch_size=batch_size,
        progress=progress,
    )
    step = latent_step(len(W_dec_LGD), group, crosscoder.config.d_in)
    similarity = torch.cat([block_similarity(block).half().cpu() for block in W_dec_LGD.split(step)])
    tuning = measure_tuning(
        crosscoder,
        W_dec_LGD,
        C_LG,
        stabilizers,
        dead,
        tolerance=used,
        threshold=family_threshold,
        pose_counts=activity.pose_counts if activity else None,
        orbits=None if orbits is None else as_orbits(orbits, group.order, crosscoder.config.d_in),
        examples=activity.top_examples if activity else None,
        graph=graph,
    )
    return Atlas(
        config=crosscoder.config,
        group=group,
        autocorrelation=C_LG,
        block_norms=norms,
        stabilizers=stabilizers,
        tolerance=used,
        families=given_families(group, stabilizers, family_threshold) if crosscoder.config.tied else found,
        spectrum=spectrum(C_LG, group),
        dead=dead,
        similarities=similarity,
        frequency=activity.frequency if activity else None,
        mean_act=activity.mean_act if activity else None,
        metrics=activity.metrics if activity else None,
        top_examples=activity.top_examples if activity else None,
        duplicates=found if crosscoder.config.tied else None,
        pose_counts=activity.pose_counts if activity else None,
        residual_share=crosscoder.residual_share().cpu() if crosscoder.config.tied else None,
        scaling=measure_scaling(crosscoder, orbits, batch_size=batch_size, progress=progress) if scaling else None,
        tuning=tuning,
        contribution=activity.contribution if activity else None,
        evidence=evidence,
        embedding=embed(W_dec_LGD, group, found, stabilizers, embedding, tied=bool(crosscoder.config.tied)),
        crosscoder=crosscoder.fingerprint(),
    )


def check_options(
    *,
    tolerance: float | Literal["auto"] = "auto",
    family_threshold: float = FAMILY_THRESHOLD,
    family_method: FamilyMethod = "star",
    embedding: EmbeddingMethod = "pca",
    evidence_examples: int = EVIDENCE_EXAMPLES,
) -> None:
    """ArgumentError for an option that `analyze` would refuse, before anything else has been done."""
    if tolerance != "auto" and not 0.0 <= tolerance < 1.0:
        raise argument_error(
            "tolerance", expected='"auto" or a number in [0, 1)', got=tolerance, remedy="0.15 suits most dictionaries."
        )
    if not 0.0 < family_threshold <= 1.0:
        raise argument_error(
            "family_threshold", expected="a cosine in (0, 1]", got=family_threshold, remedy="The default is 0.75."
        )
    if not is_whole(evidence_examples, 0):
        remedy = "0 leaves them out."
        raise argument_error(
            "evidence_examples", expected="a whole number of at least 0", got=evidence_examples, remedy=remedy
        )
    check_family_method(family_method)
    check_embedding(embedding)
