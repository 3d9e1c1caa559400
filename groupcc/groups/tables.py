"""A group's tables as tensors."""

from __future__ import annotations

import torch

from groupcc.groups.algebra import Group

__all__ = ["translation_table"]


def translation_table(group: Group, device: torch.device | str = "cpu") -> torch.Tensor:
    """Row h holds where R_h takes each block from: (R_h d)_g = d[table[h, g]], table[h, g] = gh. int64 [G, G]."""
    return torch.from_numpy(group.right_translation.copy()).to(device)
