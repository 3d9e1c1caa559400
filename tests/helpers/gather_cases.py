"""Points on maps, their gather by definition, and how far from it a kernel may be."""

import torch

from groupcc.ops.orbit_gather import sampling_taps

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


# Units in the last place of the largest value that another order of the same sums may cost. A sum of few terms is exact
# in PyTorch by luck, and the luck is another on each machine. A result in 16 bits is a longer sum that is rounded once.
UNITS = {torch.float64: 16, torch.float32: 2, torch.bfloat16: 0.5, torch.float16: 0.5}


def within_twice(got, same_dtype, exact):
    """The largest error is at most twice that of PyTorch in the same dtype, plus `UNITS`."""
    floor = UNITS[got.dtype] * torch.finfo(got.dtype).eps * exact.abs().max()
    limit = 2 * (same_dtype.detach().cpu().double() - exact).abs().max() + floor
    worst = (got.detach().cpu().double() - exact).abs().max()
    assert worst <= limit, f"{worst:.3g} over {limit:.3g}"


def by_definition(maps, points, interpolation):
    """The sum over a dense matrix of weights [G, P, H·W], in float64."""
    B, _, H, W, D = maps.shape
    G, P, _ = points.shape
    index, weight = sampling_taps(points, H, W, interpolation)
    dense = torch.zeros(G, P, H * W, dtype=torch.float64).scatter_add_(2, index, weight)
    pixels = maps.cpu().double().flatten(2, 3).expand(B, G, H * W, D)
    return torch.einsum("gpx,bgxd->bpgd", dense, pixels).reshape(B * P, G, D)


def some_points(G, P, H, W, seed=0, margin=1.0):
    """Points [G, P, 2] inside an H × W map, element 0 on pixels."""
    low, high = torch.tensor([margin, margin]), torch.tensor([W - 1 - margin, H - 1 - margin])
    generator = torch.Generator().manual_seed(seed)
    points = low + torch.rand(G, P, 2, generator=generator, dtype=torch.float64) * (high - low)
    points[:1] = points[:1].round()
    return points
