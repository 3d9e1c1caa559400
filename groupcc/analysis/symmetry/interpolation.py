"""Autocorrelation between the elements: Fourier interpolation over the rotation and the reflection coset."""

from __future__ import annotations

import torch

from groupcc.groups import PlanarGroup

__all__ = ["UPSAMPLING", "coset_values", "interpolate", "periodic_peak", "refine"]

UPSAMPLING = 16
"""Points of an interpolated curve for each element. Between these points a parabola refines a peak."""


def coset_values(C_LG: torch.Tensor, group: PlanarGroup) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns C over the n rotations and over the n reflections (None for C_n), each [L, n], by angle."""
    if group.kind == "cyclic":
        return C_LG, None
    return C_LG[:, : group.n], C_LG[:, group.n :]


def interpolate(values: torch.Tensor, factor: int) -> torch.Tensor:
    """Returns the smoothest periodic curve through n samples, at n·factor points: [..., n] → [..., n·factor].

    Trigonometric interpolation by zero-padding the discrete Fourier transform. If n is even, the Nyquist term is kept
    as A·cos(nα/2), half at either sign: it passes through the samples, which say nothing of its phase. Sample i is
    returned exactly (to rounding) at i·factor.

    Over a coset of an autocorrelation the curve stays within ±1, for any latent and not only for smooth ones. Over the
    reflections it is 2·Re Σ_k ⟨D₀(k), D₁(k)⟩ e^{ikα} with the spectra D₀, D₁ of the two halves of the orbit. Each
    harmonic turns D₁ by a phase (the Nyquist one shrinks it), so Cauchy–Schwarz bounds it by ‖D₀‖² + ‖D₁‖².
    """
    n = values.shape[-1]
    if values.numel() == 0:  # MKL refuses an empty batch, in some versions
        return values.new_empty(*values.shape[:-1], n * factor)
    spectrum = torch.fft.rfft(values, dim=-1)
    if n % 2 == 0 and factor > 1:
        spectrum[..., -1] *= 0.5
    return torch.fft.irfft(spectrum * factor, n=n * factor, dim=-1)


def periodic_peak(curve: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns where each periodic row is largest: [L, M] → (grid index [L], refined position in steps [L]).

    A parabola through the peak and its two neighbours refines the position. Ties go to the lower index.
    """
    # argmax doesn't promise the first of equals.
    peak = (curve >= curve.amax(-1, keepdim=True)).to(torch.uint8).argmax(-1)
    return peak, refine(curve, peak)


def refine(curve: torch.Tensor, peak: torch.Tensor) -> torch.Tensor:
    """Returns where the parabola through each periodic row's value at `peak` and its neighbours is highest:
    [L, M], [L] → [L]."""
    around = (peak[:, None] + torch.arange(-1, 2)) % curve.shape[-1]
    left, top, right = curve.gather(-1, around).unbind(-1)
    bend = left - 2 * top + right
    shift = torch.where(bend < 0, 0.5 * (left - right) / torch.where(bend < 0, bend, torch.ones_like(bend)), 0.0)
    return peak + shift.clamp(-0.5, 0.5)
