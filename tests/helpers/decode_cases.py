"""Latents to decode, and how near to the exact result an implementation must come."""

import torch

# N, K, L, G, D: none, one, K = 1, K = L, more latents than entries, fewer. Columns that fill no vector.
SHAPES = [
    (0, 3, 4, 2, 2),
    (1, 1, 1, 1, 1),
    (5, 1, 7, 3, 5),
    (6, 4, 4, 2, 3),
    (3, 2, 40, 1, 67),
    (40, 6, 24, 3, 11),
]
WIDE_SHAPES = [
    (9, 3, 50, 5, 131),
    (70, 20, 30, 7, 83),
    (1100, 2, 60, 4, 40),
    (300, 9, 2500, 1, 300),
    (6, 2, 4, 3, 1500),
]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def sample(shape, dtype=torch.float64, seed=0):
    """acts, indices, W_dec, b_dec and a target; some acts are 0, and rows may name a latent twice."""
    N, K, L, G, D = shape
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(N, K, generator=generator)
    acts[acts < -0.8] = 0
    indices = torch.randint(L, (N, K), generator=generator)
    rest = [torch.randn(*size, generator=generator) for size in [(L, G, D), (G, D), (N, G, D)]]
    acts, *rest = (x.to(dtype) for x in (acts, *rest))
    return acts, indices, *rest


def results(op, inputs, weights):
    """The op's outputs and, for Σ weight · output, the gradients of its floating-point inputs, in float64."""
    inputs = [x.detach().requires_grad_() if x is not None and x.is_floating_point() else x for x in inputs]
    outputs = op(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    total = sum((out * w.to(out)).sum() for out, w in zip(outputs, weights, strict=True) if w is not None)
    leaves = [x for x in inputs if x is not None and x.requires_grad]
    return [x.detach().double() for x in (*outputs, *torch.autograd.grad(total, leaves))]


def no_worse(got, same_dtype, exact, dtype):
    """At most twice the error of PyTorch in that dtype, plus 4 units in the last place of the largest value.

    In float64 PyTorch's result is itself the measure, and another order of sums may be 64 such units off.
    """
    units = 64 if dtype == torch.float64 else 4
    for ours, theirs, right in zip(got, same_dtype, exact, strict=True):
        assert ours.shape == right.shape
        if not right.numel():
            continue
        allowed = 2 * (theirs - right).abs().max() + units * torch.finfo(dtype).eps * right.abs().max()
        worst = (ours - right).abs().max()
        assert worst <= allowed, f"{worst:.3g} over {allowed:.3g}"
