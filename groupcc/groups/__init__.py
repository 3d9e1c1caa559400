"""Finite groups (algebra, in numpy) and their actions on images and positions (torch, imported when used)."""

from groupcc.groups.action import Action
from groupcc.groups.algebra import Group
from groupcc.groups.irreps import Irrep
from groupcc.groups.named import as_action, group, register_action, register_group
from groupcc.groups.planar import PlanarGroup, PlanarIrrep, PlanarSubgroup, as_planar, cyclic, dihedral
from groupcc.groups.plane import PlaneAction
from groupcc.groups.subgroups import Subgroup

__all__ = [
    "Action",
    "Group",
    "Irrep",
    "PlanarGroup",
    "PlanarIrrep",
    "PlanarSubgroup",
    "PlaneAction",
    "Subgroup",
    "as_action",
    "as_planar",
    "cyclic",
    "dihedral",
    "group",
    "register_action",
    "register_group",
]
