"""Options of `analyze`, with their defaults and checks. Needs no PyTorch, so that the command line can read them."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Literal, get_args

from groupcc._defaults import EVIDENCE_EXAMPLES, FAMILY_THRESHOLD
from groupcc.analysis.parts import PARTS
from groupcc.errors import argument_error, check_choice, is_whole

__all__ = [
    "EMBEDDING_METHODS",
    "EVIDENCE_EXAMPLES",
    "FAMILY_METHODS",
    "FAMILY_THRESHOLD",
    "EmbeddingMethod",
    "FamilyMethod",
    "Options",
    "check_embedding",
    "check_family_method",
    "check_options",
]

FamilyMethod = Literal["star", "hdbscan", "threshold"]
FAMILY_METHODS: tuple[FamilyMethod, ...] = get_args(FamilyMethod)
"""Every way to cluster, the default first."""

EmbeddingMethod = Literal["pca", "umap"]
EMBEDDING_METHODS: tuple[EmbeddingMethod, ...] = get_args(EmbeddingMethod)
"""Every way to draw the family map, the default first."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Options:
    """How to analyse; see [`analyze`][groupcc.analyze]. `requested`: names of parts that are computed on request.

    Raises:
        ArgumentError: a value that `analyze` refuses.
    """

    tolerance: float | Literal["auto"] = "auto"
    family_threshold: float = FAMILY_THRESHOLD
    family_method: FamilyMethod = "star"
    embedding: EmbeddingMethod = "pca"
    top: int = 8
    batch_size: int = 1024
    held_out: Any = None
    control: Any = None
    nulls: Any = None
    evidence_examples: int = EVIDENCE_EXAMPLES
    progress: bool = False
    requested: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        tolerance, threshold, examples = self.tolerance, self.family_threshold, self.evidence_examples
        if tolerance != "auto" and not 0.0 <= tolerance < 1.0:
            expected, remedy = '"auto" or a number in [0, 1)', "0.15 suits most dictionaries."
            raise argument_error("tolerance", expected=expected, got=tolerance, remedy=remedy)
        if not 0.0 < threshold <= 1.0:
            remedy = "The default is 0.75."
            raise argument_error("family_threshold", expected="a cosine in (0, 1]", got=threshold, remedy=remedy)
        if not is_whole(examples, 0):
            expected, remedy = "a whole number of at least 0", "0 leaves them out."
            raise argument_error("evidence_examples", expected=expected, got=examples, remedy=remedy)
        check_family_method(self.family_method)
        check_embedding(self.embedding)
        if self.top < 1 or self.batch_size < 1:
            got = (self.top, self.batch_size)
            raise argument_error("top", expected="top and batch_size at least 1", got=got, remedy="Raise it.")
        if self.nulls is not None and not hasattr(self.nulls, "stabilizers"):
            expected, remedy = "the Atlas of the network with random weights", "groupcc.analyze makes one."
            raise argument_error("nulls", expected=expected, got=type(self.nulls).__name__, remedy=remedy)
        for name in sorted(self.requested):
            if name not in PARTS or not PARTS[name].on_request:
                known = ", ".join(part for part, registered in PARTS.items() if registered.on_request)
                expected, remedy = f"an option of analyze, or a part on request ({known})", "Leave it out."
                raise argument_error(name, expected=expected, got="no such option", remedy=remedy)

    def check_orbits(self, orbits: Any) -> None:
        """ArgumentError if there are no orbits, and something is asked for that is measured on them."""
        asked = [*sorted(self.requested), *([] if self.held_out is None else ["held_out"])]
        if orbits is None and asked:
            remedy = "Pass orbits, or leave it out."
            raise argument_error(asked[0], expected="orbits to measure it on", got="orbits=None", remedy=remedy)


def check_options(**options: Any) -> None:
    """ArgumentError for an option that `analyze` would refuse, before anything else has been done."""
    Options(**options)


def check_family_method(method: object) -> None:
    """ArgumentError for what is not one of `FAMILY_METHODS`."""
    check_choice("family_method", method, FAMILY_METHODS, '"star" suits most dictionaries.')


def check_embedding(method: object) -> None:
    """ArgumentError for what is not one of `EMBEDDING_METHODS`, and for "umap" if it is not installed."""
    check_choice("embedding", method, EMBEDDING_METHODS, '"pca" needs nothing more to be installed.')
    if method == "umap" and importlib.util.find_spec("umap") is None:
        remedy = "pip install 'groupcc[umap]', or leave it out: \"pca\" needs nothing more."
        expected = "umap-learn to be installed"
        raise argument_error("embedding", expected=expected, got="no such package", remedy=remedy)
