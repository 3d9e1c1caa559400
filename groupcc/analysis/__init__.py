"""Transform block analysis: symmetries of latents, read off their decoder blocks.

Imports run one way: compare → the atlas → evidence → families → symmetry. Names are imported when they are first used,
so that the command line can read the options and the parts without PyTorch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groupcc._lazy import lazy_names

if TYPE_CHECKING:
    from groupcc.analysis.atlas import Atlas as Atlas
    from groupcc.analysis.compare.atlases import compare_atlases as compare_atlases
    from groupcc.analysis.compare.result import Comparison as Comparison
    from groupcc.analysis.compare.result import FamilyPair as FamilyPair
    from groupcc.analysis.evidence.activity import TopExamples as TopExamples
    from groupcc.analysis.evidence.activity import measure_activity as measure_activity
    from groupcc.analysis.evidence.contribution import SPARE as SPARE
    from groupcc.analysis.evidence.contribution import Contribution as Contribution
    from groupcc.analysis.evidence.evidence import Evidence as Evidence
    from groupcc.analysis.evidence.measured_on import MeasuredOn as MeasuredOn
    from groupcc.analysis.evidence.nulls import Null as Null
    from groupcc.analysis.evidence.scaling import VERDICTS as VERDICTS
    from groupcc.analysis.evidence.scaling import Scaling as Scaling
    from groupcc.analysis.evidence.scaling import measure_scaling as measure_scaling
    from groupcc.analysis.evidence.tuning import Tuning as Tuning
    from groupcc.analysis.evidence.turned_examples import measure_responses as measure_responses
    from groupcc.analysis.families.coverage import Coverage as Coverage
    from groupcc.analysis.families.coverage import read_coverage as read_coverage
    from groupcc.analysis.families.dial import GAP_ERROR as GAP_ERROR
    from groupcc.analysis.families.dial import GAP_RATE as GAP_RATE
    from groupcc.analysis.families.dial import Dial as Dial
    from groupcc.analysis.families.dial import DialRing as DialRing
    from groupcc.analysis.families.dial import read_dial as read_dial
    from groupcc.analysis.families.families import Families as Families
    from groupcc.analysis.families.families import find_families as find_families
    from groupcc.analysis.families.family_map import Embedding as Embedding
    from groupcc.analysis.families.family_map import embed as embed
    from groupcc.analysis.families.mirrors import Mirrors as Mirrors
    from groupcc.analysis.families.mirrors import find_mirrors as find_mirrors
    from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR as NEIGHBOUR_FLOOR
    from groupcc.analysis.families.neighbours import NeighbourGraph as NeighbourGraph
    from groupcc.analysis.families.neighbours import find_neighbours as find_neighbours
    from groupcc.analysis.options import EMBEDDING_METHODS as EMBEDDING_METHODS
    from groupcc.analysis.options import EVIDENCE_EXAMPLES as EVIDENCE_EXAMPLES
    from groupcc.analysis.options import FAMILY_METHODS as FAMILY_METHODS
    from groupcc.analysis.options import FAMILY_THRESHOLD as FAMILY_THRESHOLD
    from groupcc.analysis.options import check_options as check_options
    from groupcc.analysis.run import analyze as analyze
    from groupcc.analysis.symmetry.blocks import block_norms as block_norms
    from groupcc.analysis.symmetry.broken import Broken as Broken
    from groupcc.analysis.symmetry.broken import find_broken as find_broken
    from groupcc.analysis.symmetry.interpolation import interpolate as interpolate
    from groupcc.analysis.symmetry.spectrum import spectrum as spectrum
    from groupcc.analysis.symmetry.stabilizers import KINDS as KINDS
    from groupcc.analysis.symmetry.stabilizers import Stabilizer as Stabilizer
    from groupcc.analysis.symmetry.stabilizers import find_stabilizers as find_stabilizers
    from groupcc.analysis.symmetry.tolerance import calibrate_tolerance as calibrate_tolerance
    from groupcc.analysis.symmetry.translation import translate as translate
    from groupcc.groups.autocorrelation import autocorrelation as autocorrelation

_HOMES = {
    "Atlas": "atlas",
    "Broken": "symmetry.broken",
    "Comparison": "compare.result",
    "Contribution": "evidence.contribution",
    "Coverage": "families.coverage",
    "Dial": "families.dial",
    "DialRing": "families.dial",
    "EMBEDDING_METHODS": "options",
    "EVIDENCE_EXAMPLES": "options",
    "Embedding": "families.family_map",
    "Evidence": "evidence.evidence",
    "FAMILY_METHODS": "options",
    "FAMILY_THRESHOLD": "options",
    "Families": "families.families",
    "FamilyPair": "compare.result",
    "GAP_ERROR": "families.dial",
    "GAP_RATE": "families.dial",
    "KINDS": "symmetry.stabilizers",
    "MeasuredOn": "evidence.measured_on",
    "Mirrors": "families.mirrors",
    "NEIGHBOUR_FLOOR": "families.neighbours",
    "NeighbourGraph": "families.neighbours",
    "Null": "evidence.nulls",
    "SPARE": "evidence.contribution",
    "Scaling": "evidence.scaling",
    "Stabilizer": "symmetry.stabilizers",
    "TopExamples": "evidence.activity",
    "Tuning": "evidence.tuning",
    "VERDICTS": "evidence.scaling",
    "analyze": "run",
    "autocorrelation": ".groups.autocorrelation",
    "block_norms": "symmetry.blocks",
    "calibrate_tolerance": "symmetry.tolerance",
    "check_options": "options",
    "compare_atlases": "compare.atlases",
    "embed": "families.family_map",
    "find_broken": "symmetry.broken",
    "find_families": "families.families",
    "find_mirrors": "families.mirrors",
    "find_neighbours": "families.neighbours",
    "find_stabilizers": "symmetry.stabilizers",
    "interpolate": "symmetry.interpolation",
    "measure_activity": "evidence.activity",
    "measure_responses": "evidence.turned_examples",
    "measure_scaling": "evidence.scaling",
    "read_coverage": "families.coverage",
    "read_dial": "families.dial",
    "spectrum": "symmetry.spectrum",
    "translate": "symmetry.translation",
}

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES)
