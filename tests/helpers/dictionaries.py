"""Dictionaries made from known atoms: blurred, noisy, with blocks missing, with spare latents."""

from __future__ import annotations

import torch

from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.analysis import Atlas, analyze
from groupcc.zoo.planted import PlantedDictionary, planted


def blurred(atoms: torch.Tensor, cosine: float, seed: int) -> torch.Tensor:
    """Each atom turned away from itself, to this cosine, in a random direction; norms vary."""
    flat = atoms.flatten(1)
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(flat.shape, generator=generator)
    error -= (error * flat).sum(1, keepdim=True) * flat
    error /= error.norm(dim=1, keepdim=True)
    scale = 0.1 + torch.rand(len(flat), 1, generator=generator)
    return (scale * (cosine * flat + (1 - cosine**2) ** 0.5 * error)).view_as(atoms)


def atlas_of(W: torch.Tensor, name: str, **options) -> Atlas:
    config = CrosscoderConfig(group=name, d_in=W.shape[2], n_latents=len(W), k=1, encoder="orbit")
    crosscoder = GroupCrosscoder(config)
    with torch.no_grad():
        crosscoder.W_dec.copy_(W)
    return analyze(crosscoder, **options)


def noisy(atoms: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(atoms.shape, generator=generator)
    scale = share * atoms.flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
    return atoms + scale.view(-1, 1, 1) * noise


def without_blocks(W, factor, share, seed=0):
    """Each latent with a share of its blocks multiplied by `factor`, and which."""
    generator = torch.Generator().manual_seed(seed)
    L, G = W.shape[:2]
    chosen = torch.rand(L, G, generator=generator).topk(round(share * G), dim=1).indices
    hit = torch.zeros(L, G, dtype=torch.bool).scatter_(1, chosen, True)
    return torch.where(hit[:, :, None], factor * W, W), hit


def reader(atoms, name, k=2, encoder="orbit", **settings):
    """A crosscoder with these decoders, read by their own transpose."""
    L, _, D = atoms.shape
    made = GroupCrosscoder(CrosscoderConfig(group=name, d_in=D, n_latents=L, k=k, encoder=encoder, **settings))
    with torch.no_grad():
        made.W_dec.copy_(atoms)
        made.W_enc.copy_(atoms if made.W_enc.shape[1] > 1 else atoms[:, :1] * made.group.order)
        made.b_enc.zero_()
        made.b_dec.zero_()
    return made.eval()


SPARES = 3


def with_spares(n_active: int = 2) -> tuple[PlantedDictionary, GroupCrosscoder]:
    """The planted atoms with an exact encoder; and spare latents, with small acts where the budget of one more than is
    active leaves room."""
    truth = planted("D4", d_in=24, n_latents=6, seed=2)
    atoms = truth.atoms
    A, G, D = atoms.shape
    # Nearly a symmetric atom: heeded, these would say that symmetry is only ever held so nearly.
    junk = atoms[-1] + 0.03 * torch.randn(SPARES, G, D, generator=torch.Generator().manual_seed(1))
    config = CrosscoderConfig(group="D4", d_in=D, n_latents=A + SPARES, k=n_active + 1, encoder="orbit")
    crosscoder = GroupCrosscoder(config)
    inverse = torch.linalg.pinv(atoms.flatten(1).double()).float()  # [G·D, A]: reads every act, exactly
    with torch.no_grad():
        crosscoder.W_dec.copy_(torch.cat([atoms, junk / junk.flatten(1).norm(dim=1)[:, None, None]]))
        crosscoder.W_enc.zero_()
        crosscoder.W_enc[:A] = inverse.t().view(A, G, D)
        # Which of the spare ones is the largest varies with the example.
        noise = torch.randn(G, D, SPARES, generator=torch.Generator().manual_seed(3)).permute(2, 0, 1)
        crosscoder.W_enc[A:] = 1e-3 * noise
        crosscoder.b_enc.copy_(torch.tensor([0.0] * A + [0.02] * SPARES))
    return truth, crosscoder.eval()
