"""Pictures as Fourier coefficients in decorrelated colours: what feature visualisation ascends on."""

from __future__ import annotations

import torch

__all__ = ["FourierImages"]

COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
"""Square root of the covariance of natural images' colours, RGB by component, as lucid has it (github.com/tensorflow/
lucid, lucid/optvis/param/color.py): brightness, blue–yellow, green–purple."""

GAIN = 0.25
START = 0.01
"""Standard deviation of a coefficient at the start: nearly grey."""


class FourierImages:
    """n pictures [n, channels, side, side] in (0, 1): sigmoid of a sum of waves, each over its frequency.

    Of all steps of one length those in this basis change an image as natural images vary: 1/frequency in space, and for
    three channels strongly in brightness and little in colour (Olah, Mordvintsev and Schubert 2017, "Feature
    Visualization"). Ascent on the pixels themselves fills an image with its highest frequencies.
    """

    def __init__(self, n: int, channels: int, side: int, generator: torch.Generator) -> None:
        self.side = side
        frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None])
        self.scale = GAIN * side / frequency.clamp_min(1 / side)
        start = START * torch.randn(n, channels, side, side // 2 + 1, 2, generator=generator)
        self.coefficients = start.requires_grad_()
        colours = torch.tensor(COLOURS) if channels == 3 else torch.eye(channels)
        self.colours = colours / colours.norm(dim=0).max()

    def __call__(self) -> torch.Tensor:
        spectrum = torch.view_as_complex(self.coefficients) * self.scale
        waves = torch.fft.irfft2(spectrum, s=(self.side, self.side))
        return torch.sigmoid(torch.einsum("rc,nchw->nrhw", self.colours, waves))
