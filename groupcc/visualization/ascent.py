"""Gradient ascent on many images at once, each with a step length of its own."""

from __future__ import annotations

import torch

__all__ = ["Ascent"]

MOMENTUM = 0.9
NORM_MEMORY = 0.9
LONGER, SHORTER = 1.5, 0.4
"""What a round that reached more, or less, than the best before it does to the step."""


class Ascent:
    """Momentum ascent in the direction of the gradient, whose length is divided by its mean over recent steps.

    Adam's division by each coefficient's own gradient would move those that don't matter as far as those that do, and
    fill an image with noise that a latent for plain surfaces can't bear. After a round of steps that reached less than
    the best round, an image goes back to where that one began and takes shorter steps from there; after
    any other they get longer.
    """

    def __init__(self, parameters: torch.Tensor, rate: float) -> None:
        self.parameters = parameters
        n = len(parameters)
        self.rate = torch.full((n,), rate)
        self.velocity = torch.zeros_like(parameters)
        self.square = torch.zeros(n)
        self.weight = 0.0
        self.best = torch.full((n,), -torch.inf)
        self.began = parameters.detach().clone()
        self.kept = self.began.clone()

    @torch.no_grad()
    def step(self, gradient: torch.Tensor) -> None:
        """One step of every image along `gradient`, of the parameters' shape [n, …]."""
        self.square = NORM_MEMORY * self.square + (1 - NORM_MEMORY) * gradient.flatten(1).square().sum(1)
        self.weight = NORM_MEMORY * self.weight + (1 - NORM_MEMORY)
        length = (self.square / self.weight).sqrt().clamp_min(torch.finfo(gradient.dtype).tiny)
        self.velocity = MOMENTUM * self.velocity + gradient / self._each(length)
        self.parameters += self._each(self.rate) * self.velocity

    @torch.no_grad()
    def end_round(self, reached: torch.Tensor) -> None:
        """`reached` [n]: each image's objective over the round's steps, larger is better."""
        worse = reached < self.best
        self.kept[~worse] = self.began[~worse]
        self.best = torch.where(worse, self.best, reached)
        self.parameters[worse] = self.kept[worse]
        self.velocity[worse] = 0
        self.rate = torch.where(worse, self.rate * SHORTER, self.rate * LONGER)
        self.began = self.parameters.detach().clone()

    def _each(self, values: torch.Tensor) -> torch.Tensor:
        return values.view(-1, *[1] * (self.parameters.dim() - 1))
