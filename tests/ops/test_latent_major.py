"""The latent-major index: every kept entry once, under its latent, in rising order."""

import torch

from groupcc.ops._triton.latent_major import latent_major


def entries_of(indices, L, keep=None):
    order, starts = latent_major(indices, L, keep)
    assert order.dtype == starts.dtype == torch.int64
    assert starts.shape == (L + 1,)
    assert sorted(order.tolist()) == list(range(indices.numel()))
    return [order[starts[latent] : starts[latent + 1]].tolist() for latent in range(L)]


def expected_entries(indices, L, keep=None):
    flat = indices.flatten().tolist()
    kept = [True] * len(flat) if keep is None else keep.flatten().tolist()
    return [[e for e, index in enumerate(flat) if index == latent and kept[e]] for latent in range(L)]


def test_entries_stand_under_their_latent_in_rising_order():
    generator = torch.Generator().manual_seed(0)
    for N, K, L in [(7, 3, 5), (40, 4, 3), (1, 1, 1), (0, 3, 4), (5, 2, 100)]:
        indices = torch.randint(L, (N, K), generator=generator)
        assert entries_of(indices, L) == expected_entries(indices, L)
        keep = torch.rand(N, K, generator=generator) < 0.6
        assert entries_of(indices, L, keep) == expected_entries(indices, L, keep)


def test_one_latent_may_have_every_entry_or_none_be_kept():
    indices = torch.full((9, 2), 3)
    assert entries_of(indices, 4) == [[], [], [], list(range(18))]
    assert entries_of(indices, 4, torch.zeros(9, 2, dtype=torch.bool)) == [[], [], [], []]


def test_indices_may_be_strided():
    indices = torch.randint(6, (4, 10), generator=torch.Generator().manual_seed(1))[:, ::2].t()
    assert entries_of(indices, 6) == expected_entries(indices, 6)
