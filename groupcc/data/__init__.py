"""Orbits as training and analysis read them, and which of them are held out."""

from groupcc.data.orbits import Orbits, as_orbits, is_orbits

__all__ = ["Orbits", "as_orbits", "is_orbits"]
