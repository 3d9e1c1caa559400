"""Groups of rotations and reflections: algebra (numpy) and their action on images (torch, imported when used)."""

from groupcc.groups.algebra import Group, cyclic, dihedral, group
from groupcc.groups.irreps import Irrep
from groupcc.groups.subgroups import Subgroup

__all__ = ["Group", "Irrep", "Subgroup", "cyclic", "dihedral", "group"]
