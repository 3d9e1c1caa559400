"""groupcc: find and characterise the symmetries that a vision network has learned.

Names are imported when they are first used, so that `import groupcc` stays fast and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from groupcc import ops
    from groupcc.activations import Lattice, OrbitStore, measure_lattice, visualize
    from groupcc.activations.harvest import harvest
    from groupcc.analysis import Atlas, analyze, compare_atlases
    from groupcc.causal import causal_check
    from groupcc.groups import Group, cyclic, dihedral, group
    from groupcc.models import CrosscoderConfig, GroupCrosscoder, SparseLatents
    from groupcc.ops import use_backend
    from groupcc.training import TrainConfig, evaluate, train

_HOMES = {
    "Atlas": "analysis",
    "CrosscoderConfig": "models",
    "Group": "groups",
    "GroupCrosscoder": "models",
    "Lattice": "activations",
    "OrbitStore": "activations",
    "SparseLatents": "models",
    "TrainConfig": "training",
    "analyze": "analysis",
    "causal_check": "causal",
    "compare_atlases": "analysis",
    "cyclic": "groups",
    "dihedral": "groups",
    "evaluate": "training",
    "group": "groups",
    "harvest": "activations",
    "measure_lattice": "activations",
    "train": "training",
    "use_backend": "ops",
    "visualize": "activations",
}
_MODULES = {"activations", "analysis", "causal", "groups", "models", "ops", "report", "training", "zoo"}

__all__ = [
    "Atlas",
    "CrosscoderConfig",
    "Group",
    "GroupCrosscoder",
    "Lattice",
    "OrbitStore",
    "SparseLatents",
    "TrainConfig",
    "analyze",
    "causal_check",
    "compare_atlases",
    "cyclic",
    "dihedral",
    "evaluate",
    "group",
    "harvest",
    "measure_lattice",
    "ops",
    "train",
    "use_backend",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
