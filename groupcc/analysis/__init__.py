"""Transform block analysis: symmetries of latents, read off their decoder blocks."""

from groupcc.analysis.activity import Activity, TopExamples, measure_activity
from groupcc.analysis.atlas import Atlas
from groupcc.analysis.blocks import analyze, check_options
from groupcc.analysis.broken import BROKEN_SHARES, Broken, find_broken
from groupcc.analysis.clustering import FAMILY_METHODS, FamilyMethod
from groupcc.analysis.comparison import COMPARISON_BASES, Comparison, FamilyPair, compare_atlases
from groupcc.analysis.contribution import SPARE, Contribution
from groupcc.analysis.coverage import Coverage, read_coverage
from groupcc.analysis.dial import DIAL_KINDS, GAP_ERROR, GAP_RATE, Dial, DialRing, read_dial
from groupcc.analysis.embedding import EMBEDDING_METHODS, Embedding, EmbeddingMethod, embed
from groupcc.analysis.evidence import CONFIDENT, EVIDENCE_EXAMPLES, Estimate, Evidence
from groupcc.analysis.families import DUPLICATE_SIMILARITY, FAMILY_THRESHOLD, Families, find_families
from groupcc.analysis.held_out import MeasuredOn
from groupcc.analysis.interpolation import interpolate
from groupcc.analysis.mirrors import CHIRALITIES, Mirrors, find_mirrors
from groupcc.analysis.misses import Limit, NearMiss
from groupcc.analysis.neighbours import NEIGHBOUR_FLOOR, NeighbourGraph, find_neighbours
from groupcc.analysis.null import Null
from groupcc.analysis.power import spectrum
from groupcc.analysis.responses import measure_responses
from groupcc.analysis.scaling import SCALING_ERROR, VERDICTS, Scaling, measure_scaling
from groupcc.analysis.similarity import block_norms, block_similarity
from groupcc.analysis.stabilizers import KINDS, Stabilizer, find_stabilizers
from groupcc.analysis.tolerance import calibrate_tolerance
from groupcc.analysis.translation import autocorrelation, translate
from groupcc.analysis.tuning import Tuning, half_width, measure_tuning, rotation_period

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
