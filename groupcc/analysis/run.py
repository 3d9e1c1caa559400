"""analyze: transform block analysis of a trained crosscoder."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, Literal

import torch

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.evidence.activity import Activity, TopExamples, measure_activity
from groupcc.analysis.evidence.contribution import Contribution
from groupcc.analysis.evidence.labels import Labels, read_labels
from groupcc.analysis.evidence.nulls import Null, measure_null
from groupcc.analysis.evidence.resampling import measure_data
from groupcc.analysis.families.families import Families, find_families, given_families
from groupcc.analysis.families.mirrors import mirror_floor
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, NeighbourGraph, find_neighbours
from groupcc.analysis.options import EVIDENCE_EXAMPLES, FAMILY_THRESHOLD, EmbeddingMethod, FamilyMethod, Options
from groupcc.analysis.part import Part, filled
from groupcc.analysis.parts import PARTS, part_kind
from groupcc.analysis.symmetry.blocks import check_decoder, check_weights, similarity_maps
from groupcc.analysis.symmetry.broken import present_autocorrelation
from groupcc.analysis.symmetry.modulated import modulated
from groupcc.analysis.symmetry.spectrum import spectrum
from groupcc.analysis.symmetry.stabilizers import FAINT
from groupcc.analysis.symmetry.symmetries import Symmetries, read_symmetries
from groupcc.data import as_orbits
from groupcc.errors import argument_error
from groupcc.groups import as_planar
from groupcc.models import GroupCrosscoder
from groupcc.models.quality import Quality, warn_of_doubts

__all__ = ["Analysis", "analyze"]


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
    held_out: Any = None,
    control: Any = None,
    nulls: Atlas | None = None,
    evidence_examples: int = EVIDENCE_EXAMPLES,
    progress: bool = False,
    **requested: bool,
) -> Atlas:
    """Reads each latent's symmetry from the data, the decoder blocks being the second opinion, and what it responds to.

    Without `orbits` the decoder blocks are all there is. Where the two differ, and where a label hangs on the resample,
    the tolerance or the number of rotations, it is "undecided" with the reason (`read_labels`).

    - `orbits`: a store, or a tensor [M, G, D]; None analyses the weights alone. Latents that never fire on them count
      as dead, as do latents with a decoder of zeros. Spare latents fire and explain next to nothing (`Contribution`):
      they are in no family and have no say in the tolerance.
    - `tolerance`: a stabilizer's elements have C ≥ 1 − tolerance, C that of the modulated part; "auto" is
      `calibrate_tolerance`, drawn anew within `tolerance_bounds` in each resample.
    - `family_threshold`: least similarity max_h cos(d_l, R_h d_ref) of a family's members to its reference.
    - `family_method`: how families are told apart, "star", "hdbscan" or "threshold"; see `find_families`.
    - `embedding`: how the family map is drawn (`Atlas.embedding`), "pca" or "umap"; see `embed`.
    - `top`: most activating examples kept for each latent; `batch_size`: orbits encoded at once.
    - `held_out`: what the activations' estimate of the stabilizers is measured on: orbits, or indices of examples of
      `orbits`, that training has not seen. None takes the examples that `train` held out if `orbits` are those that it
      had (`crosscoder.provenance`), else all; `Evidence.activations_on` says which.
    - `control`: orbits of images that look alike at every angle, at the position of their centre. Their blocks differ
      by what interpolation does (`Atlas.evidence.null`, see `control_error`).
    - `nulls`: the atlas of the same pipeline on the same network with random weights (`groupcc.random_view`). Counts
      of kinds and families then stand beside that network's (`Atlas.nulls`). Beside raw orbits they stand always.
    - `evidence_examples`: orbits at most that stabilizers are tested on (`Atlas.evidence`); 0: weights alone.
    - `scaling=True`: measures what the data has in each block too (`Atlas.scaling`, see `measure_scaling`); needs
      `orbits`. Every part that is computed on request (`groupcc.analysis.parts.PARTS`) is asked for so, by its name.

    If some blocks of a latent are missing or weakened, its stabilizer is that of the others, and it is marked
    (`Stabilizer.broken`, see `find_broken`).

    If latents have poses (a tied crosscoder), their families are given, and the search by `family_threshold` says which
    latents have one shape (`Atlas.duplicates`).

    Changes nothing in the crosscoder. Deterministic on the CPU. A `QualityWarning` says if training ended with a
    dictionary that does not describe the layer: what is read off such a dictionary is no finding.

    Raises:
        ArgumentError: an argument is wrong; NaN or infinite weights, named, of the decoder with the first such latent.
    """
    options = Options(
        tolerance=tolerance,
        family_threshold=family_threshold,
        family_method=family_method,
        embedding=embedding,
        top=top,
        batch_size=batch_size,
        held_out=held_out,
        control=control,
        nulls=nulls,
        evidence_examples=evidence_examples,
        progress=progress,
        requested=frozenset(name for name, asked in requested.items() if asked),
    )
    analysis = Analysis(crosscoder, orbits, options)
    warn_of_doubts(Quality.from_provenance(crosscoder.provenance), "analyze")
    return analysis.atlas()


class Analysis:
    """A crosscoder that is being analysed. Each attribute is computed when something first reads it.

    So the order of computation follows from what reads what. Parts of the atlas read attributes too: those that the
    parameters of their `measure` are named after (`groupcc.analysis.part.Part`).
    """

    def __init__(self, crosscoder: GroupCrosscoder, orbits: Any, options: Options) -> None:
        if not isinstance(getattr(crosscoder, "W_dec", None), torch.Tensor):
            raise argument_error(
                "crosscoder",
                expected="a GroupCrosscoder",
                got=type(crosscoder).__name__,
                remedy="groupcc.GroupCrosscoder.from_pretrained(directory) reads one.",
            )
        options.check_orbits(orbits)
        self.crosscoder, self.group, self.options = crosscoder, as_planar(crosscoder.group, "analysis"), options
        self.W_dec_LGD = check_decoder(crosscoder.W_dec, self.group)
        check_weights(crosscoder)
        self.orbits = None if orbits is None else as_orbits(orbits, self.group.order, crosscoder.config.d_in)
        self._parts: dict[str, Part | None] = {}

    @cached_property
    def activity(self) -> Activity | None:
        """What the latents do on the orbits."""
        if self.orbits is None:
            return None
        o = self.options
        return measure_activity(self.crosscoder, self.orbits, top=o.top, batch_size=o.batch_size, progress=o.progress)

    @property
    def measured_contribution(self) -> Contribution | None:
        """What each latent explains, which is measured with `activity`."""
        return None if self.activity is None else self.activity.contribution

    @property
    def top_examples(self) -> TopExamples | None:
        """The most activating examples of each latent."""
        return None if self.activity is None else self.activity.top_examples

    @property
    def pose_counts(self) -> torch.Tensor | None:
        """How often each latent fired in each pose, [L, G]."""
        return None if self.activity is None else self.activity.pose_counts

    @property
    def pose_parts(self) -> torch.Tensor | None:
        """The same by part of the photographs, [B, L, G]."""
        return None if self.activity is None else self.activity.pose_parts

    @cached_property
    def decoded(self) -> Symmetries:
        """What the decoder blocks say."""
        activity = self.activity
        return read_symmetries(
            self.W_dec_LGD,
            self.group,
            self.options.tolerance,
            never_active=None if activity is None else activity.frequency == 0,
            spare=None if activity is None else activity.contribution.spare,
        )

    @cached_property
    def present_C(self) -> torch.Tensor:
        """C of the decoder over the blocks that are present, [L, G]."""
        S = self.decoded
        present = S.block_states == 0
        shown = S.autocorrelation.clone()
        some = (~present).any(1)
        C = present_autocorrelation(S.W_dec_LGD[some.to(S.W_dec_LGD.device)], present[some], S.group)
        shown[some] = C.cpu().to(shown)
        return shown

    @cached_property
    def null(self) -> Null:
        """What chance and interpolation do by themselves."""
        S = self.decoded
        return measure_null(S.W_dec_LGD, self.present_C, S.group, S.stabilizers, self.options.control)

    @cached_property
    def labels(self) -> Labels:
        """The label of each latent, by the data if there are orbits."""
        S, o, sums = self.decoded, self.options, None
        if self.orbits is not None and o.evidence_examples > 0:
            sums = measure_data(
                self.crosscoder,
                self.orbits,
                S.W_dec_LGD,
                S.block_states == 0,
                examples=o.evidence_examples,
                batch_size=o.batch_size,
                progress=o.progress,
            )
        given = None if o.tolerance == "auto" else float(o.tolerance)
        return read_labels(S, sums, self.null, given)

    @cached_property
    def symmetries(self) -> Symmetries:
        """What is known of the symmetries: `decoded`, with the labels."""
        labels = self.labels
        return replace(self.decoded, stabilizers=labels.stabilizers, tolerance=labels.tolerance)

    @cached_property
    def graph(self) -> NeighbourGraph:
        """Which latents are alike. All pairs are searched once, at the lowest floor at which anything reads them."""
        threshold = self.options.family_threshold
        floors = [NEIGHBOUR_FLOOR, threshold]
        if not self.crosscoder.form.has_poses:  # else mirror images are poses
            floors.append(mirror_floor(threshold))
        return find_neighbours(self.compared_LGD, self.group, floor=min(floors), dead=self.symmetries.dead)

    @cached_property
    def compared_LGD(self) -> torch.Tensor:
        """The decoders as families compare them: the modulated parts, and of invariant latents the whole.

        What is alike under every transform says nothing of a shape's pose, and shapes that share it are not one shape.
        """
        W_LGD = self.W_dec_LGD
        _, share_L = modulated(self.decoded.autocorrelation)
        invariant = torch.tensor([s.order == self.group.order for s in self.symmetries.stabilizers], dtype=torch.bool)
        whole = (invariant | (share_L >= 1.0 - FAINT)).to(W_LGD.device)
        return torch.where(whole[:, None, None], W_LGD, W_LGD - W_LGD.mean(1, keepdim=True))

    @cached_property
    def searched(self) -> Families:
        """Latents that are translates of one another."""
        return find_families(
            self.compared_LGD,
            self.group,
            threshold=self.options.family_threshold,
            dead=self.symmetries.left_out,
            stabilizers=self.symmetries.stabilizers,
            method=self.options.family_method,
            graph=self.graph,
        )

    @cached_property
    def families(self) -> Families:
        """The families: given if latents have poses, else those that were searched for."""
        if not self.crosscoder.form.has_poses:
            return self.searched
        return given_families(self.group, self.symmetries.stabilizers, self.options.family_threshold)

    def ask(self, name: str) -> Any:
        """Returns the part of this name, None if there is none, or else the attribute."""
        if name not in PARTS:
            return getattr(self, name)
        if name not in self._parts:
            wanted = name in self.options.requested or not PARTS[name].on_request
            self._parts[name] = filled(part_kind(name).measure, self.ask) if wanted else None
        return self._parts[name]

    def atlas(self) -> Atlas:
        """Returns all of it."""
        S, activity, given = self.symmetries, self.activity, self.families is not self.searched
        parts = {name: part for name in PARTS if (part := self.ask(name)) is not None}
        return Atlas(
            config=self.crosscoder.config,
            group=self.group,
            autocorrelation=S.autocorrelation,
            block_norms=S.block_norms,
            stabilizers=S.stabilizers,
            tolerance=S.tolerance,
            families=self.families,
            spectrum=spectrum(S.autocorrelation, self.group),
            dead=S.dead,
            similarities=similarity_maps(S.W_dec_LGD, self.group),
            frequency=None if activity is None else activity.frequency,
            mean_act=None if activity is None else activity.mean_act,
            metrics=None if activity is None else activity.metrics,
            top_examples=self.top_examples,
            duplicates=self.searched if given else None,
            pose_counts=self.pose_counts,
            pose_parts=self.pose_parts,
            residual_share=self.crosscoder.residual_share().cpu() if given else None,
            parts=parts,
            crosscoder=self.crosscoder.fingerprint(),
            quality=Quality.from_provenance(self.crosscoder.provenance),
        )
