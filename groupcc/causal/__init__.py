"""Causal check of families: a family moved to another pose at the layer, and what the rest of the network does."""

from groupcc.causal.check import causal_check
from groupcc.causal.result import CONDITIONS, CausalCheck, FamilyEffect

__all__ = ["CONDITIONS", "CausalCheck", "FamilyEffect", "causal_check"]
