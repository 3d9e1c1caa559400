"""Training what is tied in part: both limits, and what the residual's share says."""

import dataclasses
import itertools
import math

import pytest
import torch

import groupcc
from groupcc.errors import ArgumentError
from groupcc.models.forms.residual import shared
from groupcc.training import trainer
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match
from helpers.residual_samples import make
from helpers.training_samples import D, G, data, same, settings

CASES = [
    ("D3", "orbit", "topk", "max", "unit"),
    ("D3", "identity", "topk", "nms", "unit"),
    ("D4", "orbit", "batchtopk", "nms", "unit"),
    ("C4", "identity", "l1", "max", "free"),
    ("D4", "orbit", "topk", "max", "free"),
]


def run(case, **options):
    """A training run of some steps, off centre and clipped, and the crosscoder it started from."""
    group, encoder, sparsity, pose, norm = case
    options = {"n_latents": 8, "l1_coefficient": 0.5, "pose_distance": 0.0, **options}
    made = make(group=group, encoder=encoder, sparsity=sparsity, pose=pose, decoder_norm=norm, **options)
    truth = planted(group, D, 6, seed=0)
    acts = truth.sample(600, n_active=3, seed=1)[0]
    acts = 7 * acts + 30 + torch.randn(acts.shape[1:], generator=torch.Generator().manual_seed(2))

    def trained(crosscoder):
        return groupcc.train(crosscoder, acts, settings(steps=12, batch_size=64, lr=0.01, grad_clip=0.1)).crosscoder

    return made, trained


def close(ours, theirs):
    for name, value in theirs.form.atoms(theirs)._asdict().items():
        one, other = torch.broadcast_tensors(getattr(ours.form.atoms(ours), name), value)
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5, msg=lambda m, name=name: name + m)


@pytest.mark.parametrize("case", CASES)
def test_an_infinite_penalty_is_tied(case):
    options = {"n_latents": 24, "dead_after": 60, "aux_k": 2}
    made, trained = run(case, residual_penalty=math.inf, **options)
    tied, _ = run(case, tied=True, **options)
    ours, theirs = trained(made), trained(tied)
    close(ours, theirs)
    # The auxiliary loss had its say.
    assert case[1] == "identity" or (ours.since_fired >= 60).any()
    for name, parameter in ours.named_parameters():
        # Each pose of an encoder "identity" reads the data's centre by a block of its own.
        holds_centre = name == "residual_b_enc" and case[1] == "identity"
        assert not name.startswith("residual") or holds_centre or not parameter.any(), name
    assert ours.residual_share().tolist() == theirs.residual_share().tolist() == [0] * 24


@pytest.mark.parametrize("case", CASES)
def test_no_penalty_is_untied(case):
    made, trained = run(case, residual_penalty=0, aux_k=0)
    start = made.untie()
    ours, theirs = trained(made), trained(start)
    close(ours.untie(), theirs)
    assert float(ours.residual_share().mean()) > 1e-3


def test_an_infinite_penalty_is_the_limit_of_large_ones():
    made, trained = run(CASES[0], residual_penalty=1e7)
    tied, _ = run(CASES[0], tied=True)
    close(trained(made).untie(), trained(tied).untie())


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
def test_training_keeps_norms_and_keeps_base_and_residual_apart(encoder):
    made, trained = run(("D4", encoder, "topk", "max", "unit"), residual_penalty=1.0)
    trained(made)
    assert float(made.residual_share().max()) > 1e-2
    torch.testing.assert_close(made.untie().W_dec.flatten(1).norm(dim=1), torch.ones(64))
    torch.testing.assert_close(made.W_dec.flatten(1).square().sum(1) + made.residual_share(), torch.ones(8))
    for name, residual in made.named_parameters():
        if name.startswith("residual_W"):
            assert float(shared(residual.detach(), made.group).abs().max()) < 1e-6
    assert float(made.residual_b_dec.detach().abs().max()) > 1e-4
    assert float(made.residual_b_dec.detach().mean(0).abs().max()) < 1e-5
    assert float(made.residual_b_enc.detach().mean(1).abs().max()) < 1e-5


def broken():
    """A planted dictionary; the same where one shape without a symmetry loses half its blocks in half its poses; the
    poses of that shape; and how much of it a residual should hold."""
    truth = planted("D4", 24, 6, stabilizers=["C1", "D1", "C2", "C1", "C4", "D2"], seed=0)
    atoms = truth.atoms.clone()
    mine = truth.atom_base == 0
    atoms[mine & (truth.atom_pose % 2 == 1), :4] = 0
    atoms = torch.nn.functional.normalize(atoms.flatten(1), dim=1).view_as(atoms)
    mean = shared(atoms[mine][None], truth.group)
    return truth, dataclasses.replace(truth, atoms=atoms), mine, 1 - float(mean.square().sum())


def learned(dictionary, **options):
    """Trained on the dictionary's samples, from near its shapes, so that each has one base latent of its own."""
    acts, _ = dictionary.sample(6000, n_active=2, noise=0.05, seed=1)
    made = make(group="D4", d_in=24, k=3, pose="nms", pose_distance=0.0, **options)
    near = dictionary.base + 0.05 * torch.randn(dictionary.base.shape, generator=torch.Generator().manual_seed(4))
    made.W_dec.data, made.W_enc.data = near.clone(), near.clone()
    return groupcc.train(made, acts, settings(steps=200, batch_size=256, lr=0.01)).crosscoder


def test_the_share_shows_which_symmetry_is_broken():
    truth, dictionary, mine, expected = broken()
    assert expected > 0.2
    made = learned(dictionary)
    share = made.residual_share()
    assert float(match(made.untie().W_dec, dictionary).atom_cosine.min()) > 0.9
    assert float(share[0]) == pytest.approx(expected, rel=0.25)
    assert float(share[1:].max()) < 0.1 * float(share[0])
    # Nothing is broken where every pose is whole; and a tied one can't hold the broken shape.
    assert float(learned(truth).residual_share().max()) < 0.02
    tied = match(learned(dictionary, tied=True).untie().W_dec, dictionary)
    assert float(tied.atom_cosine[mine].min()) < 0.9


def test_the_share_falls_as_the_penalty_rises():
    _, dictionary, _, expected = broken()
    penalties = (0, 3, 30, math.inf)
    share = [float(learned(dictionary, residual_penalty=penalty).residual_share()[0]) for penalty in penalties]
    assert all(before > after for before, after in itertools.pairwise(share))
    assert share[0] == pytest.approx(expected, rel=0.1)
    assert 2 * share[2] < share[1]
    assert share[3] == 0


def test_a_run_that_was_stopped_ends_with_the_same_bits(tmp_path, monkeypatch):
    options = {"out": tmp_path / "whole", "steps": 20, "lr": 0.01}
    whole = groupcc.train(make(residual_penalty=3.0), data(), settings(**options)).crosscoder
    step = trainer._Loop.step

    def interrupted(self, number, log):
        if number == 12:
            raise KeyboardInterrupt
        step(self, number, log)

    monkeypatch.setattr(trainer._Loop, "step", interrupted)
    options["out"] = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        groupcc.train(make(residual_penalty=3.0), data(), settings(**options))
    monkeypatch.undo()
    resumed = groupcc.train(make(residual_penalty=3.0), data(), settings(**options))
    assert resumed.resumed_from == 7
    assert same(resumed.crosscoder, whole)
    assert float(whole.residual_share().min()) > 0
    with pytest.raises(ArgumentError, match=r"residual_penalty: expected 3\.0, as in the run at"):
        groupcc.train(make(residual_penalty=4.0), data(), settings(**options))


def test_decoders_can_start_as_examples():
    options = {"steps": 1, "lr": 1e-9, "init_W_dec": "examples", "augment": True}
    ours = groupcc.train(make(), data(), settings(**options)).crosscoder
    theirs = groupcc.train(make(tied=True), data(), settings(**options)).crosscoder
    torch.testing.assert_close(ours.W_dec, theirs.W_dec)
    torch.testing.assert_close(ours.W_enc, theirs.W_enc)


def test_bf16_and_the_baseline_train():
    half = groupcc.train(make(), data(), settings(precision="bf16"))
    assert {parameter.dtype for parameter in half.crosscoder.parameters()} == {torch.float32}
    assert half.metrics["fvu"] < 1
    plain = groupcc.training.train_sae(data(), make().config, settings()).crosscoder
    assert plain.config.n_latents == 6 * G
    assert plain.config.residual_penalty is None
