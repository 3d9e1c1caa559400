"""Latents with known angular harmonics: the orbits of a shape that is given by its Fourier coefficients over angle."""

from __future__ import annotations

import numpy as np
import torch

from groupcc.groups import group as make_group
from groupcc.models import CrosscoderConfig, GroupCrosscoder

HARMONICS = 8
WIDTH = 2 * HARMONICS


def shape(group, coefficients, turn=0.0, mirrored=False, slot=0, slots=1):
    """[G, WIDTH·slots]: block g holds c_k e^{ikα}, of the shape mirrored first (x → −x, then turned by `turn` degrees)
    where asked for. ⟨d, R_θ d⟩ = |G|·Σ |c_k|² cos kθ exactly. Shapes in other slots are orthogonal to it."""
    G = make_group(group)
    c = np.zeros(HARMONICS, dtype=complex)
    for k, value in coefficients.items():
        c[k] = value
    c = _moved(c, np.radians(turn), mirrored)
    blocks = np.stack([_moved(c, angle, mirror) for angle, mirror in zip(G.angles, G.reflections, strict=True)])
    values = np.concatenate([blocks.real, blocks.imag], axis=1)
    out = torch.zeros(G.order, WIDTH * slots)
    out[:, slot * WIDTH : (slot + 1) * WIDTH] = torch.from_numpy(values).float()
    return out


def _moved(c, angle, mirrored):
    k = np.arange(HARMONICS)
    c = np.where(k % 2, -1, 1) * c.conj() if mirrored else c
    return c * np.exp(1j * k * angle)


def dictionary(group, latents, **settings):
    """A crosscoder with these decoders [L, G, D] at norm 1, its encoder their transpose."""
    W = torch.stack(list(latents))
    norm = W.flatten(1).norm(dim=1).clamp_min(1e-12)
    W = W / norm[:, None, None]
    config = {"k": min(4, len(W)), "encoder": "orbit"} | settings
    made = GroupCrosscoder(CrosscoderConfig(group=group, d_in=W.shape[2], n_latents=len(W), **config))
    with torch.no_grad():
        made.W_dec.copy_(W)
        made.W_enc.copy_(W[:, : made.W_enc.shape[1]])
    return made.eval()


CHIRAL = {1: 1.0, 2: 1.0, 3: 1j}
"""Has no mirror: the best reflection reads 0.48."""
