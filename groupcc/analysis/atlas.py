"""Atlas: what transform block analysis says about every latent of a crosscoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from groupcc.analysis.evidence.activity import TopExamples
from groupcc.analysis.evidence.contribution import Contribution
from groupcc.analysis.evidence.evidence import Evidence
from groupcc.analysis.evidence.scaling import Scaling
from groupcc.analysis.evidence.tuning import Tuning
from groupcc.analysis.families.coverage import Coverage, read_coverage
from groupcc.analysis.families.dial import Dial, read_dial
from groupcc.analysis.families.families import Families
from groupcc.analysis.families.family_map import Embedding
from groupcc.analysis.rows import write_rows
from groupcc.analysis.symmetry.stabilizers import KINDS, Stabilizer
from groupcc.errors import argument_error
from groupcc.groups import Group

if TYPE_CHECKING:
    from groupcc.models import CrosscoderConfig

__all__ = ["Atlas"]

PARTS = ("evidence", "contribution", "scaling", "tuning", "embedding")
"""The optional parts: each has `columns` for the table, and `tensors` and `from_tensors` for the file."""

FAMILY_COLUMNS = (
    "cycle_error",
    "covered",
    "largest_gap_degrees",
    "covered_mirrored",
    "largest_gap_degrees_mirrored",
)
"""What the table says of a latent's family."""


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
    - `contribution`: with orbits, what each latent explains where it fires, and which are spare,
      [`Contribution`][groupcc.analysis.Contribution].
    - `scaling`: what the data has of each latent in each block, [`Scaling`][groupcc.analysis.Scaling]; if asked for.
    - `tuning`: period, chirality and tuning curve, [`Tuning`][groupcc.analysis.Tuning]; None in files from before it.
    - `evidence`: what speaks for and against each stabilizer, [`Evidence`][groupcc.analysis.Evidence].
    - `crosscoder`: fingerprint of the weights that were analysed; None in files from before it, and of what has none.
    - `embedding`: a place in the plane for each latent, the family map, [`Embedding`][groupcc.analysis.Embedding];
      None in files from before it.

    Of a tied crosscoder the latents are base latents, and `families` holds one family for each live one, with the
    number of its distinct poses (`Families.atoms`). Apart from these, which are given:

    - `duplicates`: [`Families`][groupcc.analysis.Families] of base latents that learned one shape; None if not tied.
    - `pose_counts` int64 [L, G]: with orbits, how often each fired in each pose h (an example holds R_h d); see `dial`.
    - `residual_share` [L]: how far its poses are from copies of one another, `GroupCrosscoder.residual_share`; None if
      not tied.
    """

    config: CrosscoderConfig
    group: Group
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
    residual_share: torch.Tensor | None = None
    scaling: Scaling | None = None
    tuning: Tuning | None = None
    embedding: Embedding | None = None
    contribution: Contribution | None = None
    evidence: Evidence | None = None
    crosscoder: str | None = None

    @property
    def n_latents(self) -> int:
        """L."""
        return self.config.n_latents

    @property
    def d_in(self) -> int:
        """D."""
        return self.config.d_in

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

        C is not centred, so a small modulation alone makes it high everywhere: a latent called invariant with a
        modulation of 0.01 responds alike to every pose, one with 0.15 only nearly so. 0 for dead latents.
        """
        return torch.where(self.dead, 0.0, 1.0 - self.spectrum[:, 0]).clamp_min(0.0)

    def similarity(self, latent: int) -> torch.Tensor:
        """S[g, g'] = cos(d_g, d_g') of one latent, float32 [G, G] (kept with three digits); 0 where a block is zero."""
        return self.similarities[latent].float()

    def dial(self, latent: int) -> Dial | None:
        """How often a base latent fired in each of its distinct poses; None without `pose_counts`, and for a dead one.

        See [`read_dial`][groupcc.analysis.read_dial].
        """
        if self.pose_counts is None or bool(self.dead[latent]):
            return None
        return read_dial(self.pose_counts[latent].numpy(), self.group, self.stabilizers[latent].mask)

    def coverage(self, family: int) -> Coverage | None:
        """In which orientations a family's shape has a detector, and which are missing; None of a tied crosscoder,
        whose every pose has one, and of an atlas from before this was measured.

        See [`read_coverage`][groupcc.analysis.read_coverage].
        """
        if self.families.covered is None:
            return None
        poses = self.families.poses[self.families.labels == family].numpy()
        mask = self.stabilizers[self.families.references[family]].mask
        return read_coverage(self.families.covered[family].numpy(), poses, self.group, mask)

    def table(self) -> list[dict[str, Any]]:
        """One row a latent, plain values: kind, stabilizer, family, pose, norm, activity; None where unknown.

        Unless tied: the latent with the same shape in the same pose, if any (`duplicate_of`); and of families of two or
        more how consistent their poses are (`cycle_error`) and what of their orientations is covered, see `Coverage`.
        Of a tied crosscoder: `atoms`, the distinct poses; `residual_share`; the base latent that has the same
        shape, if any (`duplicate_of`, its pose relative to that and their cosine); what the dial says, see `Dial`.
        With `contribution`: its share, and whether the latent is spare; see `Contribution.columns`.
        With `evidence`: confidence, near miss, other estimates and how the symmetry is broken; see `Evidence.columns`.
        With `scaling`: its verdict, how many blocks have each, and the median of β; see `Scaling.columns`.
        With `tuning`: period, width, chirality and mirror partner; see `Tuning.columns`.
        With `embedding`: the place on the map, `map_x` and `map_y`.
        """
        sizes = self.families.sizes
        family_columns = [self._family_columns(family) for family in range(len(sizes))]
        no_family = dict.fromkeys(FAMILY_COLUMNS)
        rows = []
        for latent, stabilizer in enumerate(self.stabilizers):
            family = int(self.families.labels[latent])
            pose = int(self.families.poses[latent])
            alone = family < 0
            rows.append(
                {
                    "latent": latent,
                    "kind": stabilizer.kind,
                    "stabilizer": stabilizer.name,
                    "label": stabilizer.label,
                    "axis_degrees": None if stabilizer.axis is None else round(stabilizer.axis, 2),
                    "score": round(stabilizer.score, 5),
                    "modulation": round(float(self.modulation[latent]), 5),
                    "family": None if alone else family,
                    "family_size": None if alone else sizes[family],
                    "pose": None if alone else self.group.element_names[pose],
                    "turn_degrees": None if alone else round(float(self.families.turns[latent]), 2),
                    "mirrored": None if alone else bool(self.families.mirrored[latent]),
                    "similarity_to_reference": (
                        None if alone else round(float(self.families.similarity_to_reference[latent]), 5)
                    ),
                    "decoder_norm": round(float(self.block_norms[latent].norm()), 6),
                    "frequency": None if self.frequency is None else float(self.frequency[latent]),
                    "mean_act": None if self.mean_act is None else float(self.mean_act[latent]),
                    **(
                        {"duplicate_of": self._duplicate_of(latent), **(no_family if alone else family_columns[family])}
                        if self.duplicates is None
                        else self._tied_columns(latent, self.duplicates)
                    ),
                }
            )
            for name in PARTS:
                part = getattr(self, name)
                rows[-1] |= {} if part is None else part.columns(latent)
        return rows

    def _duplicate_of(self, latent: int) -> int | None:
        found = -1 if self.families.duplicate_of is None else int(self.families.duplicate_of[latent])
        return None if found < 0 else found

    def _family_columns(self, family: int) -> dict[str, Any]:
        coverage = self.coverage(family)
        if coverage is None or sum(int(ring.counts.sum()) for ring in coverage.rings) < 2:
            return dict.fromkeys(FAMILY_COLUMNS)
        error = float("nan") if self.families.cycle_error is None else float(self.families.cycle_error[family])
        return {"cycle_error": None if math.isnan(error) else round(error, 5), **coverage.columns()}

    def _tied_columns(self, latent: int, duplicates: Families) -> dict[str, Any]:
        dial = self.dial(latent)
        label = int(duplicates.labels[latent])
        original = None if label < 0 else duplicates.references[label]
        copy = original not in (None, latent)
        assert self.families.atoms is not None
        told = dial if dial and dial.kind != "few" else None
        mirrored = told.mirrored if told else None
        return {
            "atoms": int(self.families.atoms[latent]),
            "residual_share": None if self.residual_share is None else round(float(self.residual_share[latent]), 5),
            "duplicate_of": original if copy else None,
            "duplicate_pose": self.group.element_names[int(duplicates.poses[latent])] if copy else None,
            "duplicate_similarity": round(float(duplicates.similarity_to_reference[latent]), 5) if copy else None,
            "firings": dial.firings if dial else None,
            "dial": dial.kind if dial else None,
            "visible_gap_degrees": round(dial.visible_gap, 2) if dial and dial.visible_gap else None,
            "covered": round(told.turned.covered, 5) if told else None,
            "largest_gap_degrees": round(told.turned.largest_gap, 2) if told else None,
            "covered_mirrored": round(mirrored.covered, 5) if mirrored else None,
            "largest_gap_degrees_mirrored": round(mirrored.largest_gap, 2) if mirrored else None,
        }

    def write_table(self, path: str | Path) -> Path:
        """Writes `table()` as .csv or .json, by the suffix, in one rename."""
        rows = self.table()
        return write_rows(path, rows, list(rows[0]))

    def dataframe(self) -> Any:
        """`table()` as a pandas DataFrame, one row a latent, indexed by it; `kind` is an ordered category.

        ArgumentError where pandas is not installed (`pip install 'groupcc[pandas]'`).
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
        """Writes a figure for a paper as .svg or .pdf; see `groupcc.report.write_figure`."""
        from groupcc.report import write_figure  # as in `report`

        return write_figure(self, path, what, **options)

    def report(self, path: str | Path, orbits: Any = None, **options: Any) -> Any:
        """Writes the HTML report; see `groupcc.report.write_report`."""
        # The report stands above the analysis, which must not need it to be imported.
        from groupcc.report import write_report

        return write_report(path, self, orbits=orbits, **options)

    def save(self, directory: str | Path) -> Path:
        """Writes `atlas.json` and `atlas.safetensors` to a new or replaced `directory`, atomically.

        ArgumentError where it holds other files than an atlas and its tables: they would be lost.
        """
        from groupcc.analysis.files import save_atlas

        return save_atlas(self, Path(directory))

    @classmethod
    def load(cls, directory: str | Path) -> Atlas:
        """Reads what `save` wrote. DataError where something is missing, damaged or of another version."""
        from groupcc.analysis.files import load_atlas

        return load_atlas(Path(directory))
