"""From a model, a layer and images to orbits: harvesting, and the store that keeps them; and back to images."""

from groupcc.activations.harvest import harvest
from groupcc.activations.lattice import Lattice, measure_lattice
from groupcc.activations.resolve import ResolvedModel, resolve_model
from groupcc.activations.store import Example, OrbitStore
from groupcc.activations.visualization import Visualization, visualize

__all__ = [
    "Example",
    "Lattice",
    "OrbitStore",
    "ResolvedModel",
    "Visualization",
    "harvest",
    "measure_lattice",
    "resolve_model",
    "visualize",
]
