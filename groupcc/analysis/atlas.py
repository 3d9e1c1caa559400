"""Atlas: what transform block analysis says about every latent of a crosscoder."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from groupcc._above import above
from groupcc.analysis import files
from groupcc.analysis.evidence.activity import TopExamples
from groupcc.analysis.evidence.contribution import Contribution
from groupcc.analysis.evidence.evidence import Evidence
from groupcc.analysis.evidence.null_counts import NullCounts
from groupcc.analysis.evidence.scaling import Scaling
from groupcc.analysis.evidence.tuning import Tuning
from groupcc.analysis.families.coverage import Coverage, read_coverage
from groupcc.analysis.families.dial import Dial, Rings, read_dial
from groupcc.analysis.families.families import Families, given_families
from groupcc.analysis.families.family_map import Embedding
from groupcc.analysis.options import FAMILY_METHODS
from groupcc.analysis.part import TOPICS, Note, Part, filled
from groupcc.analysis.parts import PARTS, part_kind
from groupcc.analysis.rows import write_rows
from groupcc.analysis.symmetry.stabilizers import KINDS, Stabilizer, restore_stabilizer
from groupcc.errors import argument_error
from groupcc.groups import PlanarGroup, as_planar, group
from groupcc.models import CrosscoderConfig
from groupcc.models.forms import form_kind
from groupcc.models.quality import Quality

__all__ = ["Atlas"]

P = TypeVar("P", bound=Part)

TENSORS = ["autocorrelation", "block_norms", "spectrum", "dead"]
TENSORS += ["frequency", "mean_act", "pose_counts", "pose_parts", "residual_share"]
"""Fields that the file holds as tensors of the same name."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """The symmetries of a dictionary, made by [`analyze`][groupcc.analyze]. Tensors are on the CPU.

    - `config`, `group`.
    - `autocorrelation` [L, G]: C(h) = ⟨d, R_h d⟩ / ‖d‖². `block_norms` [L, G].
    - `stabilizers`: one [`Stabilizer`][groupcc.analysis.Stabilizer] a latent; `tolerance`: the one used.
    - `families`: see [`Families`][groupcc.analysis.Families].
    - `spectrum` [L, irreps]: share of power in each of `irrep_names`, the trivial irrep first.
    - `dead` bool [L]: decoder of zeros, or never fired on the orbits given.
    - `similarities` float16 [L, G, G]: see `similarity`.
    - With orbits: `frequency` [L], `mean_act` [L] (where active), `metrics` and `top_examples`; else None.
    - `parts`: what else is known of every latent, by name (`groupcc.analysis.parts`), and as attributes: `evidence`,
      `contribution`, `scaling`, `tuning`, `embedding`. None if it needs orbits, is made on request or came later.
    - `crosscoder`: fingerprint of the weights that were analysed; None if unknown.
    - `quality`: how well the dictionary describes its layer; `quality.doubts` says why it should not be read.

    If latents have poses (a tied crosscoder), `families` holds one family for each live latent, with the number of its
    distinct poses (`Families.atoms`). These are given. Beside them there are

    - `duplicates`: [`Families`][groupcc.analysis.Families] of latents that learned one shape; else None.
    - `pose_counts` int64 [L, G]: with orbits, how often each latent fired in each pose h (an example holds R_h d); see
      `dial`. `pose_parts` [B, L, G]: the same by part of the photographs.
    - `residual_share` [L]: how far a latent's poses are from copies of one another, `GroupCrosscoder.residual_share`.
    """

    config: CrosscoderConfig
    group: PlanarGroup
    autocorrelation: torch.Tensor
    block_norms: torch.Tensor
    stabilizers: list[Stabilizer]
    tolerance: float
    families: Families
    spectrum: torch.Tensor
    dead: torch.Tensor
    similarities: torch.Tensor
    frequency: torch.Tensor | None = None
    mean_act: torch.Tensor | None = None
    metrics: dict[str, Any] | None = None
    top_examples: TopExamples | None = None
    duplicates: Families | None = None
    pose_counts: torch.Tensor | None = None
    pose_parts: torch.Tensor | None = None
    residual_share: torch.Tensor | None = None
    parts: Mapping[str, Part] = field(default_factory=dict)
    crosscoder: str | None = None
    quality: Quality = field(default_factory=Quality)

    def part(self, kind: type[P]) -> P | None:
        """Returns the part of this class, None if there is none."""
        return next((part for part in self.parts.values() if isinstance(part, kind)), None)

    @property
    def evidence(self) -> Evidence | None:
        """What speaks for and against each stabilizer, [`Evidence`][groupcc.analysis.Evidence]."""
        return self.part(Evidence)

    @property
    def contribution(self) -> Contribution | None:
        """With orbits, what each latent explains where it fires, [`Contribution`][groupcc.analysis.Contribution]."""
        return self.part(Contribution)

    @property
    def scaling(self) -> Scaling | None:
        """On request, what the data has of each latent in each block, [`Scaling`][groupcc.analysis.Scaling]."""
        return self.part(Scaling)

    @property
    def nulls(self) -> NullCounts | None:
        """With orbits, counts beside those of raw orbits and of random weights, `NullCounts`."""
        return self.part(NullCounts)

    @property
    def tuning(self) -> Tuning | None:
        """Period, chirality and tuning curve, [`Tuning`][groupcc.analysis.Tuning]."""
        return self.part(Tuning)

    @property
    def embedding(self) -> Embedding | None:
        """A place in the plane for each latent, the family map, [`Embedding`][groupcc.analysis.Embedding]."""
        return self.part(Embedding)

    @property
    def n_latents(self) -> int:
        """L."""
        return self.config.n_latents

    @property
    def d_in(self) -> int:
        """D."""
        return self.config.d_in

    @property
    def has_poses(self) -> bool:
        """Whether latents have |G| poses, so that their families are given."""
        return self.families.atoms is not None

    @property
    def has_residuals(self) -> bool:
        """Whether the poses of a latent may differ by more than a translation."""
        return bool(form_kind(self.config.tied).has_residuals)

    @property
    def searched(self) -> Families:
        """The families that were searched for: the `duplicates` if latents have poses, else the `families`."""
        return self.families if self.duplicates is None else self.duplicates

    @property
    def irrep_names(self) -> list[str]:
        """Names of the columns of `spectrum`."""
        return [irrep.name for irrep in self.group.irreps()]

    @property
    def kinds(self) -> list[str]:
        """`Stabilizer.kind` of each latent."""
        return [stabilizer.kind for stabilizer in self.stabilizers]

    @property
    def kind_counts(self) -> dict[str, int]:
        """How many latents are of each kind, every kind listed."""
        kinds = self.kinds
        return {kind: kinds.count(kind) for kind in KINDS}

    @property
    def modulation(self) -> torch.Tensor:
        """Share of power outside the trivial irrep, [L]: how much of a latent differs between its decoder blocks.

        0 for dead latents. The more an invariant latent has of it, the less alike it answers to all poses.
        """
        return torch.where(self.dead, 0.0, 1.0 - self.spectrum[:, 0]).clamp_min(0.0)

    def similarity(self, latent: int) -> torch.Tensor:
        """Returns S[g, g'] = cos(d_g, d_g') of one latent, float32 [G, G] (kept with three digits); 0 for a block of
        zeros."""
        return self.similarities[latent].float()

    def dial(self, latent: int) -> Dial | None:
        """Returns how often a latent fired in each pose (`read_dial`); None if dead, and without `pose_counts`."""
        if self.pose_counts is None or bool(self.dead[latent]):
            return None
        parts = None if self.pose_parts is None else self.pose_parts[:, latent].numpy()
        return read_dial(self.pose_counts[latent].numpy(), self.group, self.stabilizers[latent].mask, parts)

    def coverage(self, family: int) -> Coverage | None:
        """Returns in which orientations a family's shape has a detector, and which are missing. None if latents have
        poses, for every pose then has one, and in files from before this was measured.

        See [`read_coverage`][groupcc.analysis.read_coverage].
        """
        if self.families.covered is None:
            return None
        poses = self.families.poses[self.families.labels == family].numpy()
        mask = self.stabilizers[self.families.references[family]].mask
        return read_coverage(self.families.covered[family].numpy(), poses, self.group, mask)

    def family_types(self, family: int) -> dict[str, int]:
        """Returns how many members of a family have each stated type of stabilizer, the most frequent first.

        Copies of one shape have conjugate stabilizers, which are of one type. A family with several types is not one
        shape, or some of its labels are wrong.
        """
        members = (self.families.labels == family).nonzero()[:, 0].tolist()
        stated = (self.stabilizers[latent] for latent in members)
        return dict(Counter(s.name for s in stated if s.kind not in ("undecided", "dead")).most_common())

    def table(self) -> list[dict[str, Any]]:
        """Returns one row a latent, plain values: kind, stabilizer, family, pose, norm, activity; None if unknown.

        If a latent stands for itself: the latent with the same shape in the same pose, if any (`duplicate_of`); and of
        families of two or more how consistent their poses are (`cycle_error`) and what of their orientations is
        covered, see `Coverage`.

        If latents have poses: `atoms`, the distinct ones; `residual_share`; the latent that has the same shape, if any
        (`duplicate_of`, its pose relative to that and their cosine); what the dial says, see `Dial`.

        Then the columns of each part: see the `columns` of `Evidence`, `Contribution`, `Scaling`, `Tuning` and
        `Embedding`.
        """
        modulation = self.modulation.tolist()
        families = [] if self.has_poses else [self._family_columns(family) for family in range(len(self.families))]
        rows = []
        for latent, stabilizer in enumerate(self.stabilizers):
            family = int(self.families.labels[latent])
            if self.has_poses:
                columns = self._pose_columns(latent)
            else:
                columns = {"duplicate_of": self._duplicate_of(latent)}
                columns |= self._family_columns(None) if family < 0 else families[family]
            row = {
                "latent": latent,
                "kind": stabilizer.kind,
                "stabilizer": stabilizer.name,
                "label": stabilizer.label,
                "axis_degrees": None if stabilizer.axis is None else round(stabilizer.axis, 2),
                "score": round(stabilizer.score, 5),
                "modulation": round(modulation[latent], 5),
                **self._member_columns(latent, family),
                "decoder_norm": round(float(self.block_norms[latent].norm()), 6),
                "frequency": None if self.frequency is None else float(self.frequency[latent]),
                "mean_act": None if self.mean_act is None else float(self.mean_act[latent]),
                **columns,
            }
            for part in self.parts.values():
                row |= part.columns(latent)
            rows.append(row)
        return rows

    def _member_columns(self, latent: int, family: int) -> dict[str, Any]:
        """Returns what the table says of a latent as a member of its family; None throughout if `family` is −1."""
        names = ("family", "family_size", "pose", "turn_degrees", "mirrored", "similarity_to_reference")
        if family < 0:
            return dict.fromkeys(names)
        families = self.families
        values = (
            family,
            families.sizes[family],
            self.group.element_names[int(families.poses[latent])],
            round(float(families.turns[latent]), 2),
            bool(families.mirrored[latent]),
            round(float(families.similarity_to_reference[latent]), 5),
        )
        return dict(zip(names, values, strict=True))

    def _duplicate_of(self, latent: int) -> int | None:
        """Returns the latent that has the same shape in the same pose, or None."""
        same = self.families.duplicate_of
        return None if same is None or int(same[latent]) < 0 else int(same[latent])

    def _family_columns(self, family: int | None) -> dict[str, Any]:
        """Returns what the table says of a family; None throughout for a family of one, and if there is none."""
        types = {} if family is None or self.families.sizes[family] < 2 else self.family_types(family)
        mixed = ", ".join(f"{name} {count}" for name, count in types.items()) if len(types) > 1 else None
        return {"family_mixed": mixed, **self._coverage_columns(family)}

    def _coverage_columns(self, family: int | None) -> dict[str, Any]:
        coverage = None if family is None else self.coverage(family)
        if coverage is None or sum(int(ring.counts.sum()) for ring in coverage.rings) < 2:
            return {"cycle_error": None, **Rings.columns(None)}
        errors = self.families.cycle_error
        error = float("nan") if errors is None else float(errors[family])
        return {"cycle_error": None if math.isnan(error) else round(error, 5), **Rings.columns(coverage)}

    def _pose_columns(self, latent: int) -> dict[str, Any]:
        """Returns what the table says of the poses of a latent."""
        assert self.duplicates is not None
        assert self.families.atoms is not None
        dial, duplicates = self.dial(latent), self.duplicates
        label = int(duplicates.labels[latent])
        original = None if label < 0 else duplicates.references[label]
        copy = original not in (None, latent)
        return {
            "atoms": int(self.families.atoms[latent]),
            "residual_share": None if self.residual_share is None else round(float(self.residual_share[latent]), 5),
            "duplicate_of": original if copy else None,
            "duplicate_pose": self.group.element_names[int(duplicates.poses[latent])] if copy else None,
            "duplicate_similarity": round(float(duplicates.similarity_to_reference[latent]), 5) if copy else None,
            "firings": dial.firings if dial else None,
            "dial": dial.kind if dial else None,
            "visible_gap_degrees": round(dial.visible_gap, 2) if dial and dial.visible_gap else None,
            **Rings.columns(dial if dial and dial.kind != "few" else None),
        }

    def notes(self, latent: int) -> list[Note]:
        """Returns what the parts say of a latent in sentences, by topic."""
        notes = [note for part in self.parts.values() for note in part.notes(latent)]
        same = None if self.has_poses else self._duplicate_of(latent)
        if same is not None:
            notes.append(Note("worth", "The same shape in the same pose as {}.", same))
        return sorted(notes, key=lambda note: TOPICS.index(note.topic))

    def write_table(self, path: str | Path) -> Path:
        """Writes `table()` as .csv or .json, by the suffix, in one rename."""
        rows = self.table()
        return write_rows(path, rows, list(rows[0]))

    def dataframe(self) -> Any:
        """Returns `table()` as a pandas DataFrame, one row a latent, indexed by it; `kind` is an ordered category.

        Raises:
            ArgumentError: pandas is not installed (`pip install 'groupcc[pandas]'`).
        """
        try:
            import pandas
        except ImportError:
            remedy = "pip install 'groupcc[pandas]', or use table(), whose rows are plain dicts."
            raise argument_error(
                "dataframe", expected="pandas to be installed", got="no such package", remedy=remedy
            ) from None
        frame = pandas.DataFrame(self.table()).set_index("latent")
        frame["kind"] = pandas.Categorical(frame["kind"], categories=KINDS, ordered=True)
        return frame

    def figure(self, path: str | Path, what: str = "kinds", **options: Any) -> Path:
        """Writes a figure for a paper as .svg or .pdf; see [`write_figure`][groupcc.report.write_figure]."""
        return Path(above("write_figure")(self, path, what, **options))

    def summary(self) -> str:
        """Returns the findings in a few lines; see [`summary`][groupcc.report.summary]."""
        return str(above("summary")(self))

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kind_counts.items() if count)
        return f"Atlas({self.n_latents} latents under {self.group.name}: {kinds})"

    def report(self, path: str | Path, orbits: Any = None, **options: Any) -> Path:
        """Writes the HTML report; see [`write_report`][groupcc.report.write_report]."""
        return Path(above("write_report")(path, self, orbits=orbits, **options))

    def save(self, directory: str | Path) -> Path:
        """Writes `atlas.json` and `atlas.safetensors` to a new or replaced `directory`, atomically.

        Raises:
            ArgumentError: it holds other files than an atlas and its tables, which would be lost.
        """
        searched = self.searched
        stabilizers = [
            {"name": s.name, "label": s.label, "axis": s.axis, "score": s.score, "kind": s.kind}
            | ({"broken": True} if s.broken else {})
            | ({"reason": s.reason} if s.reason else {})
            for s in self.stabilizers
        ]
        values = {
            "config": self.config.to_dict(),
            "crosscoder": self.crosscoder,
            "tolerance": self.tolerance,
            "family_threshold": self.families.threshold,
            "family_method": searched.method,
            "references": searched.references,
            "stabilizers": stabilizers,
            "metrics": self.metrics,
            "quality": self.quality.to_dict(),
        }
        tensors = {"similarity": self.similarities, **{name: getattr(self, name) for name in TENSORS}}
        if self.top_examples is not None:
            top = self.top_examples
            tensors |= {"top_indices": top.indices, "top_acts": top.acts, "top_poses": top.poses}
        tensors |= searched.tensors()
        for part in self.parts.values():
            tensors |= part.tensors()
        return files.save(Path(directory), values, {n: tensor for n, tensor in tensors.items() if tensor is not None})

    @classmethod
    def load(cls, directory: str | Path) -> Atlas:
        """Reads what `save` wrote. DataError if something is missing, damaged or of another version."""
        return files.load(Path(directory), cls._restored)

    @classmethod
    def _restored(cls, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Atlas:
        config = CrosscoderConfig.from_dict(values["config"])
        G = as_planar(group(config.group), "analysis")
        stabilizers = [restore_stabilizer(G, **fields) for fields in values["stabilizers"]]
        # An atlas of before there was another method has no name for it.
        method = values.get("family_method", FAMILY_METHODS[0])
        searched = Families.from_tensors(tensors, list(values["references"]), values["family_threshold"], method)
        given = given_families(G, stabilizers, searched.threshold) if form_kind(config.tied).has_poses else None
        top = None
        if "top_indices" in tensors:
            top = TopExamples(tensors["top_indices"], tensors["top_acts"], tensors.get("top_poses"))
        atlas = cls(
            config=config,
            group=G,
            autocorrelation=tensors["autocorrelation"],
            block_norms=tensors["block_norms"],
            stabilizers=stabilizers,
            tolerance=values["tolerance"],
            families=searched if given is None else given,
            spectrum=tensors["spectrum"],
            dead=tensors["dead"],
            similarities=tensors["similarity"],
            frequency=tensors.get("frequency"),
            mean_act=tensors.get("mean_act"),
            metrics=values["metrics"],
            top_examples=top,
            duplicates=None if given is None else searched,
            pose_counts=tensors.get("pose_counts"),
            pose_parts=tensors.get("pose_parts"),
            residual_share=tensors.get("residual_share"),
            crosscoder=values.get("crosscoder"),
            quality=Quality.from_provenance(values),
        )

        def ask(name: str) -> Any:
            return tensors if name == "tensors" else getattr(atlas, name)

        parts = {name: filled(part_kind(name).from_tensors, ask) for name in PARTS}
        return replace(atlas, parts={name: part for name, part in parts.items() if part is not None})
