"""Transform block analysis: symmetries of latents, read off their decoder blocks."""

from groupcc.analysis.atlas import Atlas
from groupcc.analysis.compare.atlases import COMPARISON_BASES, Comparison, FamilyPair, compare_atlases
from groupcc.analysis.evidence.activity import Activity, TopExamples, measure_activity
from groupcc.analysis.evidence.contribution import SPARE, Contribution
from groupcc.analysis.evidence.evidence import CONFIDENT, EVIDENCE_EXAMPLES, Estimate, Evidence
from groupcc.analysis.evidence.measured_on import MeasuredOn
from groupcc.analysis.evidence.nulls import Null
from groupcc.analysis.evidence.scaling import SCALING_ERROR, VERDICTS, Scaling, measure_scaling
from groupcc.analysis.evidence.tuning import Tuning, half_width, measure_tuning, rotation_period
from groupcc.analysis.evidence.turned_examples import measure_responses
from groupcc.analysis.families.clustering import FAMILY_METHODS, FamilyMethod
from groupcc.analysis.families.coverage import Coverage, read_coverage
from groupcc.analysis.families.dial import DIAL_KINDS, GAP_ERROR, GAP_RATE, Dial, DialRing, read_dial
from groupcc.analysis.families.families import DUPLICATE_SIMILARITY, FAMILY_THRESHOLD, Families, find_families
from groupcc.analysis.families.family_map import EMBEDDING_METHODS, Embedding, EmbeddingMethod, embed
from groupcc.analysis.families.mirrors import CHIRALITIES, Mirrors, find_mirrors
from groupcc.analysis.families.neighbours import NEIGHBOUR_FLOOR, NeighbourGraph, find_neighbours
from groupcc.analysis.run import analyze, check_options
from groupcc.analysis.symmetry.autocorrelation import autocorrelation, translate
from groupcc.analysis.symmetry.blocks import block_norms, block_similarity
from groupcc.analysis.symmetry.broken import BROKEN_SHARES, Broken, find_broken
from groupcc.analysis.symmetry.interpolation import interpolate
from groupcc.analysis.symmetry.near_misses import Limit, NearMiss
from groupcc.analysis.symmetry.spectrum import spectrum
from groupcc.analysis.symmetry.stabilizers import KINDS, Stabilizer, find_stabilizers
from groupcc.analysis.symmetry.tolerance import calibrate_tolerance

__all__ = [
    "BROKEN_SHARES",
    "CHIRALITIES",
    "COMPARISON_BASES",
    "CONFIDENT",
    "DIAL_KINDS",
    "DUPLICATE_SIMILARITY",
    "EMBEDDING_METHODS",
    "EVIDENCE_EXAMPLES",
    "FAMILY_METHODS",
    "FAMILY_THRESHOLD",
    "GAP_ERROR",
    "GAP_RATE",
    "KINDS",
    "NEIGHBOUR_FLOOR",
    "SCALING_ERROR",
    "SPARE",
    "VERDICTS",
    "Activity",
    "Atlas",
    "Broken",
    "Comparison",
    "Contribution",
    "Coverage",
    "Dial",
    "DialRing",
    "Embedding",
    "EmbeddingMethod",
    "Estimate",
    "Evidence",
    "Families",
    "FamilyMethod",
    "FamilyPair",
    "Limit",
    "MeasuredOn",
    "Mirrors",
    "NearMiss",
    "NeighbourGraph",
    "Null",
    "Scaling",
    "Stabilizer",
    "TopExamples",
    "Tuning",
    "analyze",
    "autocorrelation",
    "block_norms",
    "block_similarity",
    "calibrate_tolerance",
    "check_options",
    "compare_atlases",
    "embed",
    "find_broken",
    "find_families",
    "find_mirrors",
    "find_neighbours",
    "find_stabilizers",
    "half_width",
    "interpolate",
    "measure_activity",
    "measure_responses",
    "measure_scaling",
    "measure_tuning",
    "read_coverage",
    "read_dial",
    "rotation_period",
    "spectrum",
    "translate",
]
