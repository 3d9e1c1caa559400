"""An untied "orbit" crosscoder recovers a planted dictionary and analysis names every stabilizer exactly."""

from __future__ import annotations

from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze, train
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match


def test_planted_d8_dictionary_is_recovered():
    truth = planted("D8", d_in=24, n_latents=16, seed=0)
    assert len({stabilizer.name for stabilizer in truth.stabilizers}) == 8
    acts, _ = truth.sample(40_000, n_active=3, seed=1000)
    config = CrosscoderConfig(group="D8", d_in=24, n_latents=256, k=4, encoder="orbit", dead_after=20_000)
    crosscoder = GroupCrosscoder(config, seed=0)
    train(crosscoder, acts, TrainConfig(steps=1000, batch_size=512, lr=0.02, held_out=0.02, progress=False))

    recovery = match(crosscoder.W_dec, truth)
    assert recovery.share(0.95) >= 0.97

    atlas = analyze(crosscoder)
    assert recovery.stabilizer_exact([stabilizer.mask for stabilizer in atlas.stabilizers]) == 1.0

    # Copies of one base latent at other poses land in one family, and no family mixes two.
    recovered = recovery.recovered_latents()
    labels = atlas.families.labels[recovered]
    base = truth.atom_base[recovery.latent_atom[recovered]]
    assert ((labels[:, None] == labels[None]) == (base[:, None] == base[None])).all()
