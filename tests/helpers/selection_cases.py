"""Pre-activations that selection ops must order rightly, and a brute-force sort to compare with."""

import math

import torch

NAN, INF = math.nan, math.inf
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def order_key(value):
    """Sorts as the ops do: NaN first, then falling, −0 equal to +0."""
    return (0, 0.0) if math.isnan(value) else (1, -value + 0.0)


def brute_topk(pre, k):
    """acts and indices of topk by Python's stable sort."""
    rows = pre.double().tolist()
    indices = [sorted(range(len(row)), key=lambda i: order_key(row[i]))[:k] for row in rows]
    chosen = [[row[i] for i in chosen] for row, chosen in zip(rows, indices, strict=True)]
    return relu(torch.tensor(chosen, dtype=pre.dtype)).view(len(rows), k), torch.tensor(indices).view(len(rows), k)


def brute_batchtopk(pre, k):
    """acts, indices and threshold of batchtopk by Python's stable sort."""
    (N, L), flat = pre.shape, pre.double().flatten().tolist()
    chosen = sorted(range(N * L), key=lambda i: order_key(flat[i]))[: N * k]
    kept = [i for i in chosen if not flat[i] <= 0]
    rows = [[i for i in kept if i // L == n] for n in range(N)]
    K = max(1, *(len(row) for row in rows)) if N else 1
    acts, indices = torch.zeros(N, K, dtype=pre.dtype), torch.zeros(N, K, dtype=torch.int64)
    for n, row in enumerate(rows):
        for slot, i in enumerate(row):
            acts[n, slot], indices[n, slot] = pre[n, i % L], i % L
    threshold = relu(pre.flatten()[chosen[-1]]) if N else pre.new_zeros(())
    return acts, indices, threshold


def relu(x):
    return torch.where(x > 0, x, torch.where(x.isnan(), x, 0.0))


def same(got, expected):
    """Equal to the bit, shapes and dtypes too; any NaN equals any NaN."""
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    got = got.detach().cpu()
    if expected.is_floating_point():
        assert torch.equal(got.isnan(), expected.isnan())
        got, expected = got.nan_to_num(0.0, INF, -INF), expected.nan_to_num(0.0, INF, -INF)
        assert torch.equal(got.signbit(), expected.signbit())
    assert torch.equal(got, expected)


def tables(L, dtype=torch.float32, N=6):
    """name → pre [N, L]: random, tied, special and adversarial."""
    g = torch.Generator().manual_seed(L)
    normal = torch.randn(N, L, generator=g)
    ramp = torch.linspace(-3, 3, L).expand(N, L)
    special = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.0, -1.0, 2.0, 1e-40, -1e-40, -NAN, 65504.0, -65504.0])
    one_nan = normal.clone()
    one_nan[:, L // 2] = NAN
    found = {
        "normal": normal,
        "tied": torch.randint(-2, 3, (N, L), generator=g).float(),
        "special": special[torch.randint(len(special), (N, L), generator=g)],
        "sparse": torch.relu(normal - 1.8),
        "zeros": torch.zeros(N, L) * torch.where(torch.rand(N, L, generator=g) < 0.5, 1.0, -1.0),
        "equal": torch.full((N, L), 1.5),
        "negative": -normal.abs() - 0.1,
        "ascending": ramp.clone(),
        "descending": ramp.flip(1),
        "nan": torch.full((N, L), NAN),
        "one nan": one_nan,
        "minus infinity": torch.full((N, L), -INF),
        "denormal": normal * 1e-41,
        "rows of unlike scale": normal * torch.logspace(-6, 4, N)[:, None],
    }
    return {name: pre.to(dtype) for name, pre in found.items()}


def sorted_batchtopk(pre, k):
    """As brute_batchtopk, by PyTorch's stable sort, for larger batches."""
    N, L = pre.shape
    chosen = pre.flatten().sort(descending=True, stable=True).indices[: N * k]
    threshold = relu(pre.flatten()[chosen[-1]])
    chosen = chosen[~(pre.flatten()[chosen] <= 0)]
    rows = [chosen[chosen // L == n] for n in range(N)]
    K = max(1, *(len(row) for row in rows))
    acts, indices = torch.zeros(N, K, dtype=pre.dtype), torch.zeros(N, K, dtype=torch.int64)
    for n, row in enumerate(rows):
        acts[n, : len(row)], indices[n, : len(row)] = pre.flatten()[row], row % L
    return acts, indices, threshold
