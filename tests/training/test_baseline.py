"""The plain autoencoder beside the crosscoder, group augmentation, and the sentence that compares the two."""

import dataclasses

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig
from groupcc.analysis import translate
from groupcc.cli.compare import comparison
from groupcc.data import as_orbits
from groupcc.data.splits import split_by_image
from groupcc.training import regress_decoder, train_sae
from groupcc.training.baseline import UprightOrbits
from groupcc.training.data import translate_at_random

GROUP = groupcc.group("D3")
G, D, L = 6, 5, 24
CONFIG = CrosscoderConfig(group="D3", d_in=D, n_latents=L, k=2, encoder="orbit", dead_after=200)
SETTINGS = TrainConfig(steps=40, batch_size=32, progress=False, augment=False)


def data(n=300):
    generator = torch.Generator().manual_seed(0)
    atoms = torch.randn(12, G * D, generator=generator)
    chosen = torch.rand(n, 12, generator=generator).topk(2, 1).indices
    acts = torch.zeros(n, 12).scatter_(1, chosen, torch.rand(n, 2, generator=generator) + 0.5)
    return 7 * (acts @ atoms).view(n, G, D) + 30


def poses(translated, acts):
    """For each example the h with translated = R_h acts, None where there is none."""
    all_GNGD = torch.stack([translate(acts, GROUP, h) for h in range(G)])
    same = (all_GNGD == translated).flatten(2).all(2)
    return [row.nonzero().flatten().tolist() for row in same.T]


def test_augmentation_translates_from_the_right():
    """(R_h a)_g = a_gh. From the left, a_hg, rotations of one another would pass and reflections not."""
    acts = torch.randn(400, G, D, generator=torch.Generator().manual_seed(1))
    table = torch.from_numpy(GROUP.right_translation.copy())
    moved = translate_at_random(acts, table, seed=3, step=5)
    found = poses(moved, acts)
    assert all(len(pose) == 1 for pose in found)
    counts = torch.bincount(torch.tensor(found).flatten(), minlength=G)
    assert counts.min() > 40  # every element, reflections too, about equally often
    assert torch.equal(moved, translate_at_random(acts, table, seed=3, step=5))
    assert not torch.equal(moved, translate_at_random(acts, table, seed=3, step=6))


def test_training_with_augmentation_resumes_to_the_bit(tmp_path, monkeypatch):
    from groupcc.training import trainer

    settings = dataclasses.replace(SETTINGS, augment=True, eval_every=6, checkpoint_every=7)
    config = dataclasses.replace(CONFIG, sparsity="batchtopk", dead_after=40)
    whole = groupcc.train(GroupCrosscoder(config), data(), dataclasses.replace(settings, out=tmp_path / "whole"))
    step = trainer._Loop.step

    def interrupted(self, number, log):
        if number == 25:
            raise KeyboardInterrupt
        step(self, number, log)

    monkeypatch.setattr(trainer._Loop, "step", interrupted)
    settings = dataclasses.replace(settings, out=tmp_path / "cut")
    with pytest.raises(KeyboardInterrupt):
        groupcc.train(GroupCrosscoder(config), data(), settings)
    monkeypatch.undo()
    # What doesn't touch the result may change on the way.
    resumed = groupcc.train(GroupCrosscoder(config), data(), dataclasses.replace(settings, checkpoint_every=3))
    assert resumed.resumed_from == 21
    state = resumed.crosscoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.crosscoder.state_dict().items())


def test_the_autoencoder_sees_the_crosscoders_images(monkeypatch):
    """Without augmentation block 0; with it the upright activation of T_h x for random h, which is block h."""
    from groupcc.training import baseline

    seen = []

    def watched(crosscoder, orbits, config, **options):
        seen.append(orbits)
        return groupcc.train(crosscoder, orbits, config, **options)

    monkeypatch.setattr(baseline, "train", watched)
    acts = data()
    for augment in (False, True):
        result = train_sae(acts, CONFIG, dataclasses.replace(SETTINGS, augment=augment))
        assert result.crosscoder.config.n_latents == L
        assert result.crosscoder.config.k == CONFIG.k
        assert result.crosscoder.group.name == "C1"
    plain, augmented = seen
    chosen = torch.arange(0, 300, 2)
    assert torch.equal(plain.take(chosen), acts[chosen, :1])
    taken = augmented.take(chosen)
    which = (taken == acts[chosen]).all(2)
    assert which.any(1).all()
    assert (which.sum(0) > 5).all()
    # The split is the crosscoder's.
    for side, other in zip(split_by_image(as_orbits(acts, G, D), 0.1, 0), split_by_image(plain, 0.1, 0), strict=True):
        assert torch.equal(side, other)


def test_the_autoencoder_learns_from_the_very_transforms_of_the_crosscoder(monkeypatch):
    """Step by step, and others each time though every batch holds all examples."""
    seen = {6: [], 1: []}
    forward = GroupCrosscoder.forward

    def watched(self, acts, **how):
        if self.training:
            seen[self.group.order].append(acts.clone())
        return forward(self, acts, **how)

    monkeypatch.setattr(GroupCrosscoder, "forward", watched)
    acts = data(32)
    settings = dataclasses.replace(SETTINGS, steps=6, augment=True, held_out=0, normalise=False, init_b_dec="zero")
    groupcc.train(GroupCrosscoder(CONFIG), acts, settings)
    train_sae(acts, CONFIG, settings)
    assert len(seen[1]) == 6
    assert all(torch.equal(upright, orbit[:, :1]) for upright, orbit in zip(seen[1], seen[6], strict=True))
    assert not any(torch.equal(seen[1][0], later) for later in seen[1][1:])


def test_the_regressed_decoder_is_the_best_there_is():
    acts = data()
    settings = dataclasses.replace(SETTINGS, steps=150, lr=1e-2)
    sae = train_sae(acts, CONFIG, settings).crosscoder
    regressed = regress_decoder(sae, acts, "D3", settings, batch_size=64)
    assert regressed.group.name == "D3"
    upright = as_orbits(acts, G, D)
    assert torch.equal(sae.encode(acts[:, :1]).to_dense(L), regressed.encode(acts).to_dense(L))
    # Least squares with a constant on the training side of the split.
    indices, _ = split_by_image(upright, settings.held_out, settings.seed)
    latents = sae.encode(acts[indices, :1]).to_dense(L).detach().double()
    design = torch.cat([latents, torch.ones(len(indices), 1, dtype=torch.float64)], dim=1)
    best = torch.linalg.lstsq(design, acts[indices].flatten(1).double(), driver="gelsd").solution
    bound = (design @ best - acts[indices].flatten(1)).square().sum()
    left = (regressed(acts[indices]).reconstruction - acts[indices]).double().square().sum()
    assert bound <= left * (1 + 1e-6)
    assert left <= 1.02 * bound
    # It can only do better on the upright block than the decoder that the autoencoder learned.
    metrics = groupcc.evaluate(regressed, acts, indices=indices)
    own = groupcc.evaluate(sae, UprightOrbits(upright), indices=indices)
    assert metrics["fvu_per_block"][0] <= own["fvu"] * 1.001
    silent = latents.amax(0) == 0
    assert silent.any()
    assert torch.equal(regressed.W_dec[silent], torch.zeros_like(regressed.W_dec[silent]))


@pytest.mark.parametrize(
    ("encoder", "sae_k", "start"),
    [
        ("identity", 2, "At equal L0 the crosscoder misses "),
        ("orbit", 2, "At equal L0 the crosscoder misses "),
        ("identity", 4, "With 2.0 latents active on average, the autoencoder's 4.0, the crosscoder misses "),
    ],
)
def test_the_verdict_says_what_is_compared(encoder, sae_k, start):
    acts = data()
    pair = {}
    for name, k, reads in (("crosscoder", 2, encoder), ("autoencoder", sae_k, "identity")):
        crosscoder = GroupCrosscoder(dataclasses.replace(CONFIG, k=k, encoder=reads)).eval()
        with torch.no_grad():
            crosscoder.b_enc.fill_(1e4)  # every latent is positive, so L0 is k
        pair[name] = (crosscoder, groupcc.analyze(crosscoder, acts))
    rows = comparison(pair, as_orbits(acts, G, D), SETTINGS)
    assert [row["L0"] for row in rows] == [2, sae_k]
    assert rows[0]["verdict"].startswith(start)
    assert ("encoder reads the activations of all transforms" in rows[0]["verdict"]) == (encoder == "orbit")
    assert "of the crosscoder's latents, in " in rows[0]["verdict"]
    assert "verdict" not in rows[1]


@pytest.mark.parametrize("tied", [True, "residual"])
def test_a_tied_crosscoder_is_compared_with_the_autoencoder(tied):
    acts = data()
    made = {}
    for name, settings in (("crosscoder", {"tied": tied, "n_latents": 3}), ("autoencoder", {})):
        crosscoder = GroupCrosscoder(dataclasses.replace(CONFIG, k=2, encoder="orbit", **settings)).eval()
        made[name] = (crosscoder, groupcc.analyze(crosscoder, acts))
    rows = comparison(made, as_orbits(acts, G, D), SETTINGS)
    assert "the plain autoencoder, its blocks regressed" in rows[0]["verdict"]
    moved = sum(s.kind != "dead" and s.order < G for s in made["crosscoder"][1].stabilizers)
    atoms = f"{rows[0]['latents in them']} of the crosscoder's atoms, given by tying, in {moved} famil"
    assert atoms in rows[0]["verdict"]
    assert "verdict" not in rows[1]


def test_a_tied_crosscoder_has_a_row_and_a_verdict_of_its_own():
    acts = data()
    made = {}
    for name, settings in (("crosscoder", {}), ("autoencoder", {}), ("tied", {"tied": True, "n_latents": 3})):
        crosscoder = GroupCrosscoder(dataclasses.replace(CONFIG, k=2, encoder="orbit", **settings)).eval()
        made[name] = (crosscoder, groupcc.analyze(crosscoder, acts))
    tied, atlas = made["tied"]
    rows = comparison(made, as_orbits(acts, G, D), SETTINGS)
    assert [row["dictionary"] for row in rows] == list(made)
    assert rows[2]["parameters"] == sum(parameter.numel() for parameter in tied.parameters()) < rows[0]["parameters"]
    live = [s for s in atlas.stabilizers if s.kind != "dead"]
    assert rows[2]["latents in them"] == sum(G // s.order for s in live if s.order < G)
    assert f"3 base latents ({3 * G} atoms" in rows[2]["verdict"]
    assert f"{3 - len(live)} of its base latents are dead" in rows[2]["verdict"]
    assert "verdict" not in rows[1]
