"""Causal check of families: a family moved to another pose at the layer, and what the rest of the network does."""

from groupcc.causal.check import causal_check
from groupcc.causal.result import FORMAT_VERSION, CausalCheck, FamilyEffect
from groupcc.causal.scores import CONDITIONS
from groupcc.causal.verdict import VERDICTS

__all__ = ["CONDITIONS", "FORMAT_VERSION", "VERDICTS", "CausalCheck", "FamilyEffect", "causal_check"]
