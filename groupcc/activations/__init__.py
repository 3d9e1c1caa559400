"""From a model, a layer and images to orbits: harvesting, and the store that keeps them."""

from groupcc.activations.harvest import harvest
from groupcc.activations.lattice import Lattice, measure_lattice
from groupcc.activations.resolve import ResolvedModel, resolve_model
from groupcc.activations.store import Example, OrbitStore

__all__ = ["Example", "Lattice", "OrbitStore", "ResolvedModel", "harvest", "measure_lattice", "resolve_model"]
