"""Right translation R_h, by which a group acts on orbits and on dictionaries."""

from __future__ import annotations

import torch

from groupcc.groups.algebra import Group

__all__ = ["translate", "translates", "translation_table"]


def translation_table(group: Group, device: torch.device | str = "cpu") -> torch.Tensor:
    """Row h holds where R_h takes each block from: (R_h d)_g = d[table[h, g]], table[h, g] = gh. int64 [G, G]."""
    return torch.from_numpy(group.right_translation.copy()).to(device)


def translate(blocks: torch.Tensor, group: Group, h: int | torch.Tensor) -> torch.Tensor:
    """(R_h d)_g = d_{gh}: right translation by h, [..., G, D] → [..., G, D].

    R_h R_k = R_{hk}. The orbit of T_h x at h·p is R_h of the orbit of x at p (the translation law), so R_h d is what
    a latent d looks like on an image that h has transformed. Example C_3, D = 1: R_1 of [[5], [6], [7]] is
    [[6], [7], [5]].

    `h`: one element, or int64 of the leading axes of `blocks`, an element for each [G, D]. Exact: values are copied.
    Gradients flow to `blocks`. Deterministic.
    """
    if not isinstance(h, torch.Tensor):
        source_G = torch.from_numpy(group.right_translation[h].copy()).to(blocks.device)
        return blocks.index_select(-2, source_G)
    source = translation_table(group, blocks.device)[h.to(blocks.device)]
    return blocks.take_along_dim(source[..., None], dim=-2)


def translates(blocks: torch.Tensor, group: Group) -> torch.Tensor:
    """R_h of every h: [..., G, D] → [..., H, G, D]."""
    return blocks[..., translation_table(group, blocks.device), :]
