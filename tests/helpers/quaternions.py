"""The quaternion group Q_8, which no plane has: a group by its Cayley table, irreps and subgroups alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest

from groupcc.groups import Group, Irrep, Subgroup, named, register_group
from groupcc.groups.arrays import IntArray

# Products of 1, i, j, k: which of them, and its sign (1 for minus).
UNIT = np.array([[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]])
MINUS = np.array([[0, 0, 0, 0], [0, 1, 0, 1], [0, 1, 1, 0], [0, 0, 1, 1]])


@dataclass(frozen=True)
class Quaternions(Group):
    """1, i, j, k, −1, −i, −j, −k are the elements 0 to 7."""

    @property
    def name(self) -> str:
        return "Q8"

    @cached_property
    def cayley(self) -> IntArray:
        unit, minus = np.arange(8) % 4, np.arange(8) // 4
        sign = (minus[:, None] + minus + MINUS[unit[:, None], unit]) % 2
        return UNIT[unit[:, None], unit] + 4 * sign

    @property
    def element_names(self) -> tuple[str, ...]:
        return ("e", "i", "j", "k", "-e", "-i", "-j", "-k")

    def irreps(self) -> tuple[Irrep, ...]:
        signs = [[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]
        lines = [Irrep(f"A{i}", 1, 1, np.array([*s, *s], float).reshape(8, 1, 1)) for i, s in enumerate(signs)]
        left = np.zeros((8, 4, 4))
        for g in range(8):
            for u in range(4):
                product = self.cayley[g, u]
                left[g, product % 4, u] = 1 - 2 * (product // 4)
        return (*lines, Irrep("H", 4, 4, left))

    def subgroups(self) -> tuple[Subgroup, ...]:
        generated = {"C1": [0], "C2": [4], "C4@i": [1], "C4@j": [2], "C4@k": [3], "Q8": [1, 2]}
        made = []
        for number, (label, elements) in enumerate(generated.items()):
            mask = self.closure(np.isin(np.arange(8), elements))
            made.append(Subgroup(label.split("@")[0], label, int(mask.sum()), mask, number))
        return tuple(made)


@pytest.fixture
def quaternions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Group]:
    """Q_8, known by name for the length of a test."""
    monkeypatch.setattr(named, "_GROUPS", dict(named._GROUPS))
    register_group("Q8", '"Q8"', lambda match: Quaternions())
    yield named.group("Q8")
    named._parse.cache_clear()
