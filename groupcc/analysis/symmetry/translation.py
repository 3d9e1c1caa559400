"""Right translation R_h, by which a group acts on orbits and on dictionaries."""

from __future__ import annotations

import torch

from groupcc.groups import Group

__all__ = ["translate"]


def translate(d_GD: torch.Tensor, group: Group, h: int) -> torch.Tensor:
    """(R_h d)_g = d_{gh}, right translation by h: [..., G, D] → [..., G, D].

    R_h R_k = R_{hk}. The orbit of T_h x at h·p is R_h of the orbit of x at p (the translation law), so R_h d is what
    the latent d looks like on an image that h has transformed.
    """
    index = torch.tensor(group.right_translation[h], device=d_GD.device)
    return d_GD.index_select(-2, index)
