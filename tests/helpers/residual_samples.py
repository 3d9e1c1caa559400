"""Crosscoders tied in part, for their tests."""

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder
from helpers.training_samples import D, G


def make(**options):
    defaults = {"group": "D3", "d_in": D, "n_latents": 6, "k": 2, "encoder": "orbit", "tied": "residual"}
    return GroupCrosscoder(CrosscoderConfig(**{**defaults, **options}), seed=0)


def disturbed(**options):
    """A crosscoder with random residuals and biases."""
    made = make(**options)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.named_parameters():
        if name.startswith("residual_") or name in ("b_enc", "b_dec"):
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    return made


def orbits(N=9):
    return torch.randn((N, G, D), generator=torch.Generator().manual_seed(3))
