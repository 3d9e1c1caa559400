"""Training reads activations about their centre, and the centre is folded into what is saved."""

import pytest
import torch

import groupcc
from groupcc.models.moved_pre_acts import moved_pre_acts
from groupcc.training.evaluation import evaluate
from helpers.training_samples import D, G, data, make, same, settings

KINDS = [
    {},
    {"encoder": "identity"},
    {"sparsity": "batchtopk"},
    {"sparsity": "jumprelu"},
    {"tied": True, "n_latents": 8},
    {"tied": True, "n_latents": 8, "encoder": "identity"},
    {"tied": "residual", "n_latents": 8},
    {"tied": "residual", "n_latents": 8, "encoder": "identity"},
]


def around(kind):
    """Activations of mean square about 1, one centre for all blocks, and a crosscoder that training left."""
    crosscoder = make(**kind)
    with torch.no_grad():
        for parameter in crosscoder.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return torch.randn(40, G, D, generator=torch.Generator().manual_seed(4)), crosscoder.double().eval()


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_folding_moves_the_input_and_the_output_by_the_centre(kind):
    """What the folded crosscoder gives at a is c and what the one before gave at a − c, if the form can hold c."""
    acts, crosscoder = around(kind)
    acts = acts.double()
    centre = 10 * torch.randn(G, D, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    centre = crosscoder.form.centre(crosscoder, centre)
    before, pre = crosscoder(acts - centre), crosscoder.pre_acts(acts - centre)
    poses = torch.arange(6) if crosscoder.form.has_poses else None
    pairs = (torch.tensor([0, 3, 5, 1, 2, 7]), poses)
    moved = moved_pre_acts(crosscoder, acts[:6] - centre, *pairs)
    crosscoder.fold_centre_(centre)
    after = crosscoder(acts)
    torch.testing.assert_close(crosscoder.pre_acts(acts), pre)
    torch.testing.assert_close(after.reconstruction, before.reconstruction + centre)
    assert torch.equal(after.latents.indices, before.latents.indices)
    torch.testing.assert_close(after.latents.acts, before.latents.acts)
    if centre.std(0).max() < 1e-12:  # a centre that the group leaves alone is moved with the orbit
        torch.testing.assert_close(moved_pre_acts(crosscoder, acts[:6], *pairs), moved)
    # What other parts read: atoms written out, and their encoders one by one.
    W, b = crosscoder.encoder_rows(range(crosscoder.config.n_latents))
    read = acts[:, : W.shape[2]].flatten(1) @ W.flatten(2).flatten(0, 1).t() + b.flatten()
    torch.testing.assert_close(read, pre.flatten(1))
    atoms = crosscoder.form.atoms(crosscoder)
    torch.testing.assert_close(
        acts[:, : W.shape[2]].flatten(1) @ atoms.W_enc.flatten(1).t() + atoms.b_enc, pre.flatten(1)
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_was_folded_is_saved_and_read(kind, tmp_path):
    trained = groupcc.train(make(**kind), data(), settings(out=tmp_path / "run")).crosscoder
    saved = groupcc.GroupCrosscoder.from_pretrained(tmp_path / "run" / "crosscoder")
    assert same(saved, trained)
    assert saved.fingerprint() == trained.fingerprint()


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("channels", [slice(None), slice(2, 3)], ids=["all", "one"])
def test_a_constant_changes_nothing_but_the_biases(kind, channels):
    """1000 times the spread, added to all channels or to one: held-out FVU within 5 %, and no latent dies of it."""
    acts = data(600) - 30
    far = acts.clone()
    far[:, :, channels] += 1000 * acts.std()
    near, moved = (
        groupcc.train(make(**kind), given, settings(steps=150, lr=5e-3, held_out=0.2)) for given in (acts, far)
    )
    assert moved.metrics["fvu"] == pytest.approx(near.metrics["fvu"], rel=0.05)
    assert near.metrics["fvu"] < 0.95
    assert moved.metrics["dead_fraction"] <= near.metrics["dead_fraction"] + 1e-9


def test_it_is_the_centre_that_does_it():
    """Read about 0, the same activations teach nothing: the test above can fail."""
    acts = data(600) - 30
    far = acts + 1000 * acts.std()
    result = groupcc.train(make(), far, settings(steps=150, lr=5e-3, init_b_dec="zero"))
    assert result.metrics["fvu"] > 0.95


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bits(kind, tmp_path, monkeypatch):
    from helpers.training_samples import stopped_at

    acts = data() + 100
    whole = groupcc.train(make(**kind), acts, settings(out=tmp_path / "whole")).crosscoder
    stopped = stopped_at(23, lambda: groupcc.train(make(**kind), acts, settings(out=tmp_path / "run")), monkeypatch)
    assert stopped.resumed_from == 21
    assert same(stopped.crosscoder, whole)


def test_a_checkpoint_can_be_used_as_it_is(tmp_path):
    """It takes activations as they are, like the result."""
    acts = data() + 100
    result = groupcc.train(make(), acts, settings(out=tmp_path / "run"))
    last = groupcc.GroupCrosscoder.from_pretrained(tmp_path / "run" / "checkpoints" / "step-000000040")
    assert evaluate(last, acts)["fvu"] == pytest.approx(evaluate(result.crosscoder, acts)["fvu"], rel=1e-6)


def test_augmented_examples_have_one_centre_for_all_blocks():
    """Of every translate the mean over the blocks is the same."""
    acts = data(400)
    acts[:, 1] += 50
    crosscoder = groupcc.train(make(), acts, settings(steps=1, lr=1e-12, augment=True)).crosscoder
    torch.testing.assert_close(crosscoder.b_dec, crosscoder.b_dec[:1].expand(G, -1))
    assert float((crosscoder.b_dec.mean(0) - acts.mean((0, 1))).abs().max()) < acts.std()
