"""The baseline: a plain sparse autoencoder of upright activations, made to predict every block by regression."""

from __future__ import annotations

import dataclasses

import torch

from groupcc.data import Orbits, as_orbits
from groupcc.data.splits import fingerprint, split_by_image
from groupcc.groups.translate import translation_table
from groupcc.models import CrosscoderConfig, GroupCrosscoder
from groupcc.training.config import TrainConfig
from groupcc.training.data import translate_at_random
from groupcc.training.trainer import TrainResult, train

__all__ = ["UprightOrbits", "regress_decoder", "train_sae"]

RIDGE = 1e-4


class UprightOrbits(Orbits):
    """Block 0 of orbits, as orbits under the trivial group: what a plain sparse autoencoder sees."""

    def __init__(self, orbits: Orbits) -> None:
        self.orbits = orbits
        self.image_ids, self.image_names = orbits.image_ids, orbits.image_names

    @property
    def photograph_ids(self) -> torch.Tensor:
        return self.orbits.photograph_ids

    def __len__(self) -> int:
        return len(self.orbits)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        return self.orbits.take(indices)[:, :1]


class _AugmentedUprightOrbits(UprightOrbits):
    """One transform of each example, drawn anew: block h of an orbit is the upright activation of T_h x.

    A training step gets the transforms that the crosscoder gets at that step (`at_step`). Elsewhere (`step` None) the
    draw depends on the examples asked for. Both are the same in a resumed run.
    """

    def __init__(self, orbits: Orbits, right_translation: torch.Tensor, seed: int, step: int | None = None) -> None:
        super().__init__(orbits)
        self.right_translation, self.seed, self.step = right_translation, seed, step

    def at_step(self, step: int) -> Orbits:
        return _AugmentedUprightOrbits(self.orbits, self.right_translation, self.seed, step)

    def take(self, indices: torch.Tensor) -> torch.Tensor:
        step = int(indices.sum()) if self.step is None else self.step
        acts = self.orbits.take(indices)
        return translate_at_random(acts, self.right_translation, self.seed, step)[:, :1]


def train_sae(
    orbits: object, config: CrosscoderConfig, train_config: TrainConfig, *, held_out_orbits: object | None = None
) -> TrainResult:
    """Trains a plain sparse autoencoder on upright activations, as large and as sparse as `config`'s crosscoder.

    It is a `GroupCrosscoder` on the trivial group. With `train_config.augment` it sees the upright activations of
    transformed images, as the crosscoder sees translated orbits: both learn from the same images. Beside a tied
    crosscoder it has as many latents as that has atoms. `held_out_orbits`: as in `train`.
    """
    from groupcc.groups import group

    G = group(config.group)

    def upright(orbits: object, name: str) -> Orbits:
        source = as_orbits(orbits, G.order, config.d_in, name)
        if train_config.augment:
            return _AugmentedUprightOrbits(source, translation_table(G), train_config.seed)
        return UprightOrbits(source)

    sae_config = dataclasses.replace(
        config,
        group="C1",
        encoder="identity",
        tied=False,
        residual_penalty=None,
        pose=None,
        n_latents=config.n_atoms,
    )
    settings = dataclasses.replace(train_config, augment=False)
    unseen = None if held_out_orbits is None else upright(held_out_orbits, "held_out_orbits")
    sae = GroupCrosscoder(sae_config, seed=train_config.seed)
    return train(sae, upright(orbits, "orbits"), settings, held_out_orbits=unseen)


@torch.no_grad()
def regress_decoder(
    sae: GroupCrosscoder, orbits: object, group: str, train_config: TrainConfig, batch_size: int = 2048
) -> GroupCrosscoder:
    """The autoencoder with a decoder for every block: â_g = Σ_l f_l W[l, g] + b[g], least squares over the data.

    f are the autoencoder's latents of the upright activation; the regression sees the examples that
    `train_config`'s split leaves for training (each under one random translate with `augment`). What comes back is an
    "identity" crosscoder with free decoder norms, so evaluation and block analysis treat both alike; its provenance
    says which examples were left out. Normal equations in fp64 with a ridge of 1e-4 of their mean diagonal, which holds
    latents that never fire at zero.
    """
    config = dataclasses.replace(sae.config, group=group, encoder="identity", decoder_norm="free")
    crosscoder = GroupCrosscoder(config)
    G, D, L = crosscoder.group.order, config.d_in, config.n_latents
    source = as_orbits(orbits, G, D)
    indices, _ = split_by_image(source, train_config.held_out, train_config.seed)
    table = translation_table(crosscoder.group)
    gram = torch.zeros(L + 1, L + 1, dtype=torch.float64)
    moment = torch.zeros(L + 1, G * D, dtype=torch.float64)
    for step, start in enumerate(range(0, len(indices), batch_size)):
        acts = source.take(indices[start : start + batch_size])
        if train_config.augment:
            acts = translate_at_random(acts, table, train_config.seed, step)
        latents = sae.encode(acts[:, :1].to(sae.W_dec.device)).to_dense(L).cpu().double()
        design = torch.cat([latents, torch.ones(len(acts), 1, dtype=torch.float64)], dim=1)
        gram += design.T @ design
        moment += design.T @ acts.flatten(1).double()
    penalty = RIDGE * gram.diagonal()[:L].mean()
    gram.diagonal()[:L] += penalty
    solution = torch.linalg.solve(gram, moment).float()
    crosscoder.W_enc.copy_(sae.W_enc)
    crosscoder.b_enc.copy_(sae.b_enc)
    crosscoder.sparsity.copy_state_(sae, crosscoder)
    crosscoder.W_dec.copy_(solution[:L].view(L, G, D))
    crosscoder.b_dec.copy_(solution[L].view(G, D))
    crosscoder.provenance = {"settings": {"train": train_config.resumable_settings(), "data": fingerprint(source)}}
    return crosscoder.eval()
