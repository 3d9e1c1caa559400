"""Groups and actions by name: where a new kind is registered."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from groupcc.errors import argument_error
from groupcc.groups.action import Action
from groupcc.groups.algebra import Group
from groupcc.groups.planar import PlanarGroup, cyclic, dihedral
from groupcc.groups.plane import PlaneAction

__all__ = ["as_action", "group", "register_action", "register_group"]

MakeGroup = Callable[["re.Match[str]"], Group]

_GROUPS: dict[str, tuple[str, MakeGroup]] = {}
_ACTIONS: dict[str, Callable[[Group], Action]] = {}


def register_group(pattern: str, shown: str, make: MakeGroup) -> None:
    """Makes `groupcc.group` know a kind of group by name, and with it files, ops and `CrosscoderConfig(group=...)`.

    `pattern`: a regular expression that matches the whole name, in capitals. `shown`: how an error lists it. `make`:
    from the match to the group, whose `name` must match again. Registering a pattern anew replaces it.
    """
    _GROUPS[pattern] = (shown, make)
    _parse.cache_clear()


def register_action(make: type[Action]) -> None:
    """Makes stores find an action by its `kind`; `make(group)` must give it. The same kind again replaces it."""
    _ACTIONS[make.kind] = make


@lru_cache(maxsize=256)
def _parse(name: str) -> Group | None:
    """The group of this name. One object for each name, so that its tables are made once."""
    for pattern, (_, make) in _GROUPS.items():
        match = re.fullmatch(pattern, name)
        if match is not None:
            return make(match)
    return None


def _planar(match: re.Match[str]) -> PlanarGroup:
    n = int(match[2])
    return cyclic(n) if match[1] == "C" else dihedral(n)


register_group(r"([CD])([1-9][0-9]*)", '"C<n>" or "D<n>" with n >= 1', _planar)
register_action(PlaneAction)


def group(spec: str | Group) -> Group:
    """The group of that name: `"C<n>"` or `"D<n>"`, n rotations (`"D32"` has 64 elements); a Group is returned as is.

    The number counts rotations. Whether the paper's "D32" has 32 rotations or 32 elements its text leaves open; the
    second reading is `"D16"` here. Other kinds of group are known by their names after `register_group`.
    """
    if isinstance(spec, Group):
        return spec
    known = _parse(spec.strip().upper()) if isinstance(spec, str) else None
    if known is not None:
        return known
    raise argument_error(
        "group",
        expected=", or ".join(shown for shown, _ in _GROUPS.values()),
        got=spec,
        remedy='For example "C8" (8 rotations) or "D32" (32 rotations and 32 reflections).',
    )


def as_action(spec: str | Group | Action, kind: str = PlaneAction.kind) -> Action:
    """The action of a group, or of a group's name, of this kind; an Action is returned as is.

    Raises:
        ArgumentError: no such group or kind, or a group that this kind cannot move.
    """
    if isinstance(spec, Action):
        return spec
    if kind not in _ACTIONS:
        raise argument_error(
            "action",
            expected=f"a registered kind of action: {', '.join(_ACTIONS)}",
            got=kind,
            remedy="Import the module that defines it, and call groupcc.groups.register_action(TheAction).",
        )
    return _ACTIONS[kind](group(spec))
