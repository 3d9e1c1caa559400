"""From images to orbits: the harvest, and the store that keeps them."""

from groupcc.harvesting.harvest import HarvestOptions, harvest
from groupcc.harvesting.store import Example, OrbitStore

__all__ = ["Example", "HarvestOptions", "OrbitStore", "harvest"]
