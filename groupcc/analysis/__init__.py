"""Transform block analysis: symmetries of latents, read off their decoder blocks."""

from groupcc.analysis.activity import Activity, TopExamples, measure_activity
from groupcc.analysis.atlas import Atlas
from groupcc.analysis.blocks import analyze, check_options
from groupcc.analysis.families import FAMILY_THRESHOLD, Families, find_families
from groupcc.analysis.interpolation import interpolate
from groupcc.analysis.power import spectrum
from groupcc.analysis.similarity import block_norms, block_similarity
from groupcc.analysis.stabilizers import KINDS, Stabilizer, find_stabilizers
from groupcc.analysis.tolerance import calibrate_tolerance
from groupcc.analysis.translation import autocorrelation, translate

__all__ = [
    "FAMILY_THRESHOLD",
    "KINDS",
    "Activity",
    "Atlas",
    "Families",
    "Stabilizer",
    "TopExamples",
    "analyze",
    "autocorrelation",
    "block_norms",
    "block_similarity",
    "calibrate_tolerance",
    "check_options",
    "find_families",
    "find_stabilizers",
    "interpolate",
    "measure_activity",
    "spectrum",
    "translate",
]
