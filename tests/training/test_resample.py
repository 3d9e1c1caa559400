"""Resampling: which dead latents start anew from which residuals, and that every planted shape is then found."""

from __future__ import annotations

import math

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig, analyze
from groupcc.errors import ArgumentError
from groupcc.groups.translate import translation_table
from groupcc.models.forms.tied import translates
from groupcc.training import trainer
from groupcc.training.resample import distinct, resample_dead_
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match
from helpers.training_samples import D, G, L, data, make, same, settings, stopped_at


def recovered(truth, crosscoder):
    found = match(translates(crosscoder.W_dec.detach(), truth.group), truth)
    recovery = match(crosscoder.W_dec, truth)
    exact = recovery.stabilizer_exact([stabilizer.mask for stabilizer in analyze(crosscoder).stabilizers])
    return found.share(), found.share_of_shapes(), exact


def d8(seed, **options):
    """The planted D8 dictionary, and what a tied crosscoder finds of it in 80 small steps."""
    truth = planted("D8", d_in=24, n_latents=16, seed=seed)
    acts, _ = truth.sample(40_000, n_active=3, seed=seed + 1000)
    config = CrosscoderConfig(
        group="D8",
        d_in=24,
        n_latents=24,
        k=3,
        encoder="orbit",
        dead_after=500,
        tied=True,
        pose="nms",
        pose_distance=0.0,
    )
    options = {"augment": False, **options}
    training = TrainConfig(steps=80, batch_size=128, lr=0.02, held_out=0.02, seed=seed, progress=False, **options)
    return recovered(truth, groupcc.train(GroupCrosscoder(config, seed=seed), acts, training).crosscoder)


@pytest.mark.parametrize("seed", range(5))
def test_every_atom_of_planted_d8_and_every_stabilizer(seed):
    assert d8(seed, resample_every=10) == (1.0, 1.0, 1.0)


def test_without_it_shapes_are_missed():
    """If training reads activations off their centre; about their centre few latents die."""
    assert min(d8(seed, init_b_dec="zero")[1] for seed in range(3)) < 0.9
    assert min(d8(seed, init_b_dec="zero", resample_every=10)[1] for seed in range(3)) == 1


def adam(crosscoder):
    """An optimizer as training holds it, with moments that are nowhere 0."""
    optimizer = torch.optim.Adam(crosscoder.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(5)
    for parameter in crosscoder.parameters():
        parameter.grad = torch.rand(parameter.shape, generator=generator) + 0.1
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "options",
    [{}, {"encoder": "identity"}, {"tied": True}, {"tied": True, "encoder": "identity"}, {"tied": "residual"}],
)
def test_dead_latents_start_anew_and_no_other(options):
    crosscoder = make(**options)
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter += 0.1
    crosscoder.since_fired += 7
    before = {name: value.clone() for name, value in crosscoder.state_dict().items()}
    optimizer = adam(crosscoder)
    moments = {
        name: {slot: v.clone() for slot, v in optimizer.state[p].items()} for name, p in crosscoder.named_parameters()
    }
    dead = torch.tensor([2, 5, 11])
    residuals = torch.randn(3, G, D, generator=torch.Generator().manual_seed(0))
    resample_dead_(crosscoder, optimizer, dead, residuals)

    directions = residuals / residuals.flatten(1).norm(dim=1)[:, None, None]
    matched = (crosscoder.W_dec.detach()[dead].flatten(1) @ directions.flatten(1).T).max(1)
    torch.testing.assert_close(matched.values, torch.ones(3))
    assert sorted(matched.indices.tolist()) == [0, 1, 2]
    blocks = crosscoder.W_enc.shape[1]
    W_dec, gain = crosscoder.W_dec[dead], 1 if crosscoder.config.encoder == "orbit" else G
    torch.testing.assert_close(crosscoder.W_enc[dead], W_dec[:, :blocks] * gain)
    # What reads b_dec alone is 0, with an "identity" encoder on average over poses.
    if crosscoder.config.tied != "residual":
        nothing = crosscoder.b_dec.detach().expand(G, -1)[None]
        pre = crosscoder.pre_acts(nothing)[0][dead].reshape(3, -1).mean(1)
        torch.testing.assert_close(pre, torch.zeros(3), atol=1e-4, rtol=0)
    assert crosscoder.since_fired[dead].tolist() == [0, 0, 0]

    live = torch.ones(L, dtype=torch.bool).index_fill_(0, dead, False)
    for name, parameter in crosscoder.named_parameters():
        now, old, state = parameter.detach(), before[name], optimizer.state[parameter]
        if name.endswith("b_dec"):
            assert torch.equal(now, old)
            assert torch.equal(state["exp_avg"], moments[name]["exp_avg"])
            continue
        assert torch.equal(now[live], old[live]), name
        assert not torch.equal(now[dead], old[dead]), name
        if name.startswith("residual_"):
            assert not now[dead].any(), name
        assert parameter.is_leaf
        first, was = state["exp_avg"], moments[name]["exp_avg"]
        assert not first[dead].any()
        assert torch.equal(first[live], was[live])
        second, was = state["exp_avg_sq"], moments[name]["exp_avg_sq"]
        torch.testing.assert_close(second[dead], was[live].mean(0).expand_as(second[dead]))
        assert torch.equal(second[live], was[live])


def test_nothing_left_to_explain_leaves_all_as_it_is():
    crosscoder = make(tied=True)
    before = crosscoder.fingerprint()
    resample_dead_(crosscoder, adam(crosscoder), torch.tensor([1, 2]), torch.zeros(4, G, D))
    assert crosscoder.fingerprint() == before
    # One residual makes one start, however many are dead.
    residuals = torch.zeros(4, G, D)
    residuals[2, 1, 3] = 5.0
    crosscoder.since_fired += 9
    resample_dead_(crosscoder, adam(crosscoder), torch.tensor([1, 2]), residuals)
    torch.testing.assert_close(crosscoder.W_dec[1], residuals[2] / 5)
    assert crosscoder.since_fired[:4].tolist() == [9, 0, 9, 9]


@pytest.mark.parametrize("tied", [False, True])
def test_the_most_frequent_first_and_none_twice(tied):
    crosscoder = make(tied=tied)
    rare, common, other = torch.linalg.qr(torch.randn(G * D, 3, generator=torch.Generator().manual_seed(1)))[0].T
    mixed = (rare + common) / 2**0.5
    kinds = torch.stack([mixed, rare, common, common, common, rare, other]).view(-1, G, D)
    turned = kinds.clone()
    table = translation_table(crosscoder.group)
    for n in range(len(kinds)):
        turned[n] = kinds[n, table[n % G]]
    power = torch.ones(7)
    # The sum of two is like neither. Rounding may tell translates apart.
    chosen = distinct(turned if tied else kinds, power, crosscoder, 3)
    assert [kind in group for kind, group in zip(chosen, ((2, 3, 4), (1, 5), (6,)), strict=True)] == [True] * 3
    if not tied:
        assert chosen == [2, 1, 6]
    assert distinct(kinds, torch.tensor([1.0, 1, 1, 1, 1, 1, 50]), crosscoder, 1) == [6]
    assert sorted(distinct(kinds, power, crosscoder, 99)) == list(range(7))


def test_when_latents_start_anew():
    config = settings(steps=100, resample_every=20, decay_fraction=0.2)
    assert [n for n in range(1, 101) if config.resamples_after(n)] == [20, 40, 60]
    assert not any(settings().resamples_after(n) for n in range(1, 41))
    with pytest.raises(ArgumentError, match="resample_every: expected a whole number >= 0"):
        settings(resample_every=-1)


@pytest.mark.parametrize("options", [{"tied": True}, {"tied": "residual"}, {"sparsity": "batchtopk"}])
def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch, options):
    seen = []
    monkeypatch.setattr(trainer, "resample_dead_", lambda *given: seen.append(len(given[2])) or resample_dead_(*given))
    run = {"steps": 30, "lr": 0.01, "resample_every": 4, "augment": True}

    def trained(**more):
        crosscoder = make(dead_after=64, **options)
        return groupcc.train(crosscoder, data(), settings(**run, **more)).crosscoder

    whole = trained(out=tmp_path / "whole")
    assert len(seen) >= 2
    assert same(stopped_at(17, lambda: trained(out=tmp_path / "stopped"), monkeypatch), whole)
    assert not same(
        groupcc.train(make(dead_after=64, **options), data(), settings(**run | {"resample_every": 0})).crosscoder, whole
    )


def test_an_infinite_penalty_is_tied():
    # A seed with which no choice of a latent hangs on rounding, in which the two differ.
    run = settings(steps=12, batch_size=64, lr=0.01, resample_every=3, augment=True, seed=1)
    ours, theirs = (
        groupcc.train(make(dead_after=100, n_latents=8, aux_k=0, **options), data(600), run).crosscoder
        for options in ({"tied": "residual", "residual_penalty": math.inf}, {"tied": True})
    )
    values = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(values[name], parameter, atol=2e-5, rtol=1e-5)
    assert not ours.residual_W_dec.any()
