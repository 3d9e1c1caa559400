"""groupcc: find and characterise the symmetries that a vision network has learned.

Names are imported when they are first used, so that `import groupcc` stays fast and needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groupcc._above import provide
from groupcc._lazy import lazy_names

__version__ = "0.1.0"

if TYPE_CHECKING:
    from groupcc import ops as ops
    from groupcc.analysis import Atlas as Atlas
    from groupcc.analysis import analyze as analyze
    from groupcc.analysis import compare_atlases as compare_atlases
    from groupcc.causal import causal_check as causal_check
    from groupcc.groups import Group as Group
    from groupcc.groups import cyclic as cyclic
    from groupcc.groups import dihedral as dihedral
    from groupcc.groups import group as group
    from groupcc.harvesting import OrbitStore as OrbitStore
    from groupcc.harvesting.harvest import harvest as harvest
    from groupcc.harvesting.null_view import random_view as random_view
    from groupcc.models import CrosscoderConfig as CrosscoderConfig
    from groupcc.models import GroupCrosscoder as GroupCrosscoder
    from groupcc.models import SparseLatents as SparseLatents
    from groupcc.ops import use_backend as use_backend
    from groupcc.training import TrainConfig as TrainConfig
    from groupcc.training import evaluate as evaluate
    from groupcc.training import train as train
    from groupcc.views import Lattice as Lattice
    from groupcc.views import LayerView as LayerView
    from groupcc.views import measure_lattice as measure_lattice
    from groupcc.views.random_weights import random_weights as random_weights
    from groupcc.visualization import visualize as visualize

_HOMES = {
    "Atlas": "analysis",
    "CrosscoderConfig": "models",
    "Group": "groups",
    "GroupCrosscoder": "models",
    "Lattice": "views",
    "LayerView": "views",
    "OrbitStore": "harvesting",
    "SparseLatents": "models",
    "TrainConfig": "training",
    "analyze": "analysis",
    "causal_check": "causal",
    "compare_atlases": "analysis",
    "cyclic": "groups",
    "dihedral": "groups",
    "evaluate": "training",
    "group": "groups",
    "harvest": "harvesting",
    "measure_lattice": "views",
    "ops": "ops",
    "random_view": "harvesting.null_view",
    "random_weights": "views.random_weights",
    "train": "training",
    "use_backend": "ops",
    "visualize": "visualization",
}
_MODULES = ["analysis", "causal", "data", "groups", "harvesting", "models", "report", "training", "views"]
_MODULES += ["visualization", "zoo"]

__getattr__, __dir__, __all__ = lazy_names(__name__, _HOMES, _MODULES)
provide(summary="groupcc.report", write_figure="groupcc.report", write_report="groupcc.report")
