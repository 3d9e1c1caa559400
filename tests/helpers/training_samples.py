"""Small planted data, crosscoders and settings for the tests of training."""

import pytest
import torch

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig
from groupcc.training import trainer

G, D, L = 6, 5, 24


def data(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    atoms = torch.randn(12, G * D, generator=generator)
    chosen = torch.rand(n, 12, generator=generator).topk(2, 1).indices
    acts = torch.zeros(n, 12).scatter_(1, chosen, torch.rand(n, 2, generator=generator) + 0.5)
    return 7 * (acts @ atoms).view(n, G, D) + 30


def make(**options):
    defaults = {"group": "D3", "d_in": D, "n_latents": L, "k": 2, "encoder": "orbit", "dead_after": 200}
    return GroupCrosscoder(CrosscoderConfig(**{**defaults, **options}), seed=0)


def settings(**options):
    defaults = {"steps": 40, "batch_size": 32, "progress": False, "log_every": 10, "checkpoint_every": 7}
    defaults |= {"augment": False, "resample_every": 0}
    return TrainConfig(**{**defaults, **options})


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def stopped_at(number, train, monkeypatch):
    """What `train()` returns when it is called again after an interrupt before that step."""
    step = trainer._Loop.step

    def interrupted(self, reached, log):
        if reached == number:
            raise KeyboardInterrupt
        step(self, reached, log)

    with monkeypatch.context() as patch:
        patch.setattr(trainer._Loop, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train()
    return train()


class Images:
    """Orbits of a few images, several positions each."""

    def __init__(self, acts, per_image=10):
        self.acts = acts
        self.image_ids = self.photograph_ids = torch.arange(len(acts)) // per_image
        self.image_names = [f"photo-{i}.png" for i in range(len(acts) // per_image)]

    def __len__(self):
        return len(self.acts)

    def take(self, indices):
        return self.acts[indices]
