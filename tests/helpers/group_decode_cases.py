"""Arguments of the ops that decode base latents in poses."""

import torch

import groupcc


def sample(shape, dtype=torch.float64, seed=0):
    """acts, indices, poses, W, b and x; some acts are 0, and rows may name a latent, or a pose of it, twice."""
    name, N, K, L, D = shape
    G = groupcc.group(name).order
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(N, K, generator=generator)
    acts[acts < -0.8] = 0
    indices = torch.randint(L, (N, K), generator=generator)
    poses = torch.randint(G, (N, K), generator=generator)
    W, b, x = (torch.randn(*size, generator=generator) for size in [(L, G, D), (1, D), (N, G, D)])
    acts, W, b, x = (t.to(dtype) for t in (acts, W, b, x))
    return acts, indices, poses, W, b, x
