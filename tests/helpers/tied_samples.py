"""Small tied crosscoders, and orbits for them."""

import torch

import groupcc
from groupcc.models import GroupCrosscoder


def crosscoder(seed=0, **settings):
    defaults = {"group": "D4", "d_in": 6, "n_latents": 5, "k": 3, "encoder": "orbit", "tied": True}
    made = GroupCrosscoder(groupcc.CrosscoderConfig(**(defaults | settings)), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    for parameter in (made.b_enc, made.b_dec):
        parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def orbits(made, N=9, seed=3):
    shape = (N, made.group.order, made.config.d_in)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
