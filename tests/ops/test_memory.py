"""take_scaled: examples times a number, with the extension and without."""

import builtins

import pytest
import torch

from groupcc.data.orbits import TensorOrbits
from groupcc.ops.memory import take_scaled


def without_the_extension(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name == "groupcc.ops._cpp.launch":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)


@pytest.mark.parametrize("extension", [True, False])
@pytest.mark.parametrize("shape", [(5, 2, 3), (9, 4, 480), (70, 16, 4096), (70, 17, 4099)], ids=str)
def test_rows_times_a_number(shape, extension, monkeypatch):
    """The last two are written past the cache, one of them from addresses that are no multiple of 16."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    indices = torch.randint(shape[0], (shape[0] + 1,), generator=torch.Generator().manual_seed(1))
    if not extension:
        without_the_extension(monkeypatch)
    got = take_scaled(x, indices, 0.375)
    assert torch.equal(got, 0.375 * x[indices])
    assert torch.equal(take_scaled(x.transpose(1, 2), indices, 2.0), 2 * x.transpose(1, 2)[indices])
    assert take_scaled(x, indices[:0], 2.0).shape == (0, *shape[1:])


def test_what_is_not_contiguous_is_not_copied_whole():
    x = torch.arange(6.0).view(1, 2, 3).expand(10**12, 2, 3)  # 24 TB, were it contiguous
    assert torch.equal(take_scaled(x, torch.tensor([10**12 - 1, 0]), 0.5), 0.5 * x[:2])


@pytest.mark.parametrize("index", [-1, 5])
def test_an_example_that_there_is_not(index):
    with pytest.raises(IndexError):
        take_scaled(torch.zeros(5, 2, 3), torch.tensor([0, index]), 1.0)


def test_orbits_of_a_tensor():
    acts = torch.randn(6, 2, 3, generator=torch.Generator().manual_seed(0))
    for held in (acts, acts.double()):
        orbits, indices = TensorOrbits(held), torch.tensor([4, 0, 4])
        assert torch.equal(orbits.take(indices), acts[indices])
        assert torch.equal(orbits.take_scaled(indices, 4.0), 4 * acts[indices])
        assert orbits.take(indices).dtype == torch.float32
