"""Training: what it minimises, guards, evaluation, initialisation."""

import pytest
import torch

import groupcc
from groupcc import GroupCrosscoder
from groupcc.data import as_orbits
from groupcc.data.splits import split_by_image
from groupcc.errors import ArgumentError, DataError
from groupcc.training import trainer
from groupcc.training.data import batch_indices
from groupcc.training.initialise import geometric_median, initialise_decoder, measure
from helpers.training_samples import D, G, Images, L, data, make, same, settings


def test_a_crosscoder_learns_what_was_planted():
    result = groupcc.train(make(), data(2000), settings(steps=600, batch_size=128, lr=1e-2))
    assert result.metrics["fvu"] < 0.02
    assert result.metrics["n_examples"] == 200


def test_nan_in_the_data_names_the_example_before_training_starts():
    acts = data(400)
    acts[57, 1, 2] = float("nan")
    with pytest.raises(DataError, match=r"orbits have NaN or infinity in examples 57 \(images photo-5\.png\)"):
        groupcc.train(make(), Images(acts), settings(held_out=0))


def test_nan_in_the_data_names_step_and_example(monkeypatch):
    monkeypatch.setattr("groupcc.training.initialise.SAMPLE", 4)  # which doesn't come upon it
    acts = data(400)
    acts[57, 1, 2] = float("nan")
    crosscoder = make()
    expected = r"training stopped at step \d+ \(epoch 0\): unusable .* from examples 57 \(images photo-5\.png\)"
    with pytest.raises(DataError, match=expected):
        groupcc.train(crosscoder, Images(acts), settings(steps=400, init_b_dec="zero", held_out=0, normalise=False))
    assert all(p.isfinite().all() for p in crosscoder.parameters())


def test_diverging_training_stops_with_the_last_good_weights():
    crosscoder = make()
    acts = data()
    acts[::7] *= 1e30
    with pytest.raises(DataError, match=r"training stopped at step .*loss .*gradient norm"):
        groupcc.train(crosscoder, acts, settings(normalise=False, init_b_dec="zero"))
    assert all(p.isfinite().all() for p in crosscoder.parameters())
    assert not crosscoder.training


def test_a_batch_that_diverges_leaves_no_trace(monkeypatch):
    """Weights, and the counters that the forward pass has already moved, are those of the step before."""
    forward = GroupCrosscoder.forward
    calls = []

    def diverging(self, acts, **how):
        out = forward(self, acts, **how)
        calls.append(None)
        if len(calls) == 4:
            out.losses["total"] = out.losses["total"] * float("nan")
        return out

    monkeypatch.setattr(GroupCrosscoder, "forward", diverging)
    longer = settings(steps=9, normalise=False, held_out=0, warmup_steps=0, decay_fraction=0)
    stopped = make(sparsity="batchtopk")
    with pytest.raises(DataError, match=r"step 3 .*loss nan"):
        groupcc.train(stopped, data(), longer)
    monkeypatch.undo()
    shorter = settings(steps=3, normalise=False, held_out=0, warmup_steps=0, decay_fraction=0)
    assert same(groupcc.train(make(sparsity="batchtopk"), data(), shorter).crosscoder, stopped)


def test_decoder_gradients_lie_along_the_sphere_and_are_clipped(monkeypatch):
    """At unit norm the part of the gradient along a decoder is removed; what Adam sees has at most the given norm."""
    seen = []
    step = torch.optim.Adam.step

    def watched(self, closure=None):
        parameters = [p for group in self.param_groups for p in group["params"]]
        seen.append([p.grad.detach().clone() for p in parameters])
        W = next(p for p in parameters if p.shape == (L, G, D))
        seen[-1].append((W.grad * W).sum((1, 2)).abs().max() / W.grad.norm())
        return step(self, closure)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    groupcc.train(make(), data(), settings(steps=5, grad_clip=0.01))
    for *gradients, along in seen:
        assert torch.stack([g.norm() for g in gradients]).norm() == pytest.approx(0.01, rel=1e-3)
        assert along < 1e-5
    seen.clear()
    groupcc.train(make(decoder_norm="free"), data(), settings(steps=5, grad_clip=0))
    assert all(along > 1e-3 for *_, along in seen)
    assert max(torch.stack([g.norm() for g in gradients]).norm() for *gradients, _ in seen) > 0.01


def test_held_out_is_split_by_image():
    orbits = Images(data(300))
    training, held_out = split_by_image(orbits, 0.2, seed=3)
    assert len(training) + len(held_out) == 300
    assert len(held_out) == 60
    assert not set(orbits.image_ids[training].tolist()) & set(orbits.image_ids[held_out].tolist())
    assert sorted([*training.tolist(), *held_out.tolist()]) == list(range(300))
    assert not torch.equal(split_by_image(orbits, 0.2, seed=4)[1], held_out)
    # At least one image on either side.
    assert len(orbits.image_ids[split_by_image(orbits, 0.001, seed=0)[1]].unique()) == 1
    assert len(orbits.image_ids[split_by_image(orbits, 0.999, seed=0)[0]].unique()) == 1
    with pytest.raises(ArgumentError, match="held_out"):
        split_by_image(Images(data(10)), 0.2, seed=0)


def test_figures_on_the_way_are_of_all_held_out_images(monkeypatch, tmp_path):
    orbits = Images(data(300))
    _, held_out = split_by_image(orbits, 0.2, seed=0)
    seen = []

    def watched(crosscoder, source, *, indices, progress=False):
        seen.append(indices)
        return evaluate(crosscoder, source, indices=indices, progress=progress)

    evaluate = trainer.evaluate
    monkeypatch.setattr(trainer, "evaluate", watched)
    groupcc.train(make(), orbits, settings(out=tmp_path, held_out=0.2, eval_every=20, eval_examples=13))
    on_the_way, at_the_end, of_training = seen
    assert 6 <= len(on_the_way) <= 13
    assert orbits.image_ids[on_the_way].unique().tolist() == orbits.image_ids[held_out].unique().tolist()
    assert torch.equal(at_the_end, held_out)
    assert not torch.isin(of_training, held_out).any()
    assert len(of_training) <= 13


def test_every_epoch_is_shuffled_once(monkeypatch):
    orders = []
    randperm = torch.randperm
    monkeypatch.setattr(torch, "randperm", lambda n, **options: orders.append(n) or randperm(n, **options))
    for step in range(20):
        batch_indices(torch.arange(1009), 100, seed=77, step=step)
    assert len(orders) == 2


def test_every_epoch_visits_every_example_once():
    indices = torch.arange(100, 150)
    seen = torch.cat([batch_indices(indices, 30, seed=1, step=s) for s in range(5)])
    assert sorted(seen[:50].tolist()) == list(range(100, 150))
    assert sorted(seen[50:100].tolist()) == list(range(100, 150))
    assert seen[:50].tolist() != seen[50:100].tolist()
    assert len(batch_indices(indices, 200, seed=1, step=0)) == 200


def test_evaluate_against_the_formula():
    crosscoder = make().eval()
    acts = data(500) + 1000  # a large mean must not drown the variance
    metrics = groupcc.evaluate(crosscoder, acts, batch_size=64)
    out = crosscoder(acts)
    residual = (acts - out.reconstruction).double().square()
    total = (acts - acts.double().mean(0)).square()
    assert metrics["fvu"] == pytest.approx((residual.sum() / total.sum()).item(), rel=1e-5)
    assert metrics["explained_variance"] == 1 - metrics["fvu"]
    for g in range(G):
        assert metrics["fvu_per_block"][g] == pytest.approx((residual[:, g].sum() / total[:, g].sum()).item(), rel=1e-5)
    assert metrics["l0"] == pytest.approx(float(out.latents.l0.double().mean()))
    fired = out.latents.indices[out.latents.acts > 0].unique()
    assert metrics["dead_fraction"] == pytest.approx(1 - len(fired) / L)
    assert groupcc.evaluate(crosscoder, torch.ones(5, G, D))["fvu"] is None


def test_geometric_median():
    # Of points on a line it is the middle one, however far the outlier.
    points = torch.tensor([[0.0, 0], [1, 1], [2, 2], [3, 3], [1000, 1000]])
    torch.testing.assert_close(geometric_median(points), torch.tensor([2.0, 2.0]), atol=1e-2, rtol=0)
    assert geometric_median(torch.full((4, 3), 2.0)).tolist() == [2, 2, 2]


@pytest.mark.parametrize("centre", ["geometric_median", "mean", "zero"])
def test_statistics(centre):
    acts = data(1000)
    statistics = measure(as_orbits(acts, G, D), torch.arange(1000), settings(init_b_dec=centre))
    expected = {"mean": acts.mean(0), "zero": torch.zeros(G, D)}.get(centre)
    if expected is not None:
        torch.testing.assert_close(statistics.centre, expected)
    else:
        assert (statistics.centre - acts.mean(0)).norm() < 0.3 * acts.std() * (G * D) ** 0.5
    assert 0.5 <= statistics.scale * statistics.variance**0.5 <= 2
    assert statistics.scale == 2 ** round(torch.tensor(statistics.scale).log2().item())


@pytest.mark.parametrize("encoder", ["identity", "orbit"])
@pytest.mark.parametrize("augment", [False, True])
def test_decoders_can_start_as_examples(encoder, augment):
    acts = data(20)
    acts[3] = acts[5]
    crosscoder = make(encoder=encoder)
    fresh = crosscoder.W_dec.detach().clone()
    orbits = as_orbits(acts, G, D)
    centre = acts[3].clone()
    initialise_decoder(crosscoder, orbits, torch.arange(20), centre, settings(augment=augment, seed=2))
    table = groupcc.group("D3").right_translation
    translates = (acts - centre)[:, table.tolist() if augment else [list(range(G))]]  # [20, poses, G, D]
    directions = torch.nn.functional.normalize(translates.flatten(2), dim=2).view_as(translates)
    alike = torch.einsum("lgd,npgd->lnp", crosscoder.W_dec.detach(), directions).amax((1, 2))
    kept = (crosscoder.W_dec == fresh).all(2).all(1)
    # Latents whose example is the centre, and those beyond the examples, keep their start.
    assert torch.equal(alike[:20] > 1 - 1e-5, ~kept[:20])
    assert int(kept[:20].sum()) <= 2 if augment else int(kept[:20].sum()) == 2
    assert torch.equal(crosscoder.W_dec[20:], fresh[20:])
    scale = 1 if encoder == "orbit" else G
    blocks = G if encoder == "orbit" else 1
    torch.testing.assert_close(crosscoder.W_enc, crosscoder.W_dec[:, :blocks] * scale)


def test_bf16_autocast_and_l1_train():
    acts = data(500)
    half = groupcc.train(make(), acts, settings(precision="bf16", steps=200, lr=1e-2))
    assert half.crosscoder.W_dec.dtype == torch.float32
    assert half.metrics["fvu"] < 0.5
    sparse = groupcc.train(make(sparsity="l1", l1_coefficient=3.0), acts, settings(steps=300, lr=1e-2))
    dense = groupcc.train(make(sparsity="l1", l1_coefficient=1e-3), acts, settings(steps=300, lr=1e-2))
    assert sparse.metrics["l0"] < dense.metrics["l0"]


def test_learning_rate_schedule():
    config = settings(steps=100, lr=1.0, warmup_steps=9, decay_fraction=0.2)
    rates = [config.learning_rate(step, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[80] == 1.0
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
    assert settings().learning_rate(20, 16384) == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps: expected a whole number >= 1"),
        ({"lr": -1}, "lr: expected a positive number"),
        ({"held_out": 1.0}, "held_out"),
        ({"init_b_dec": "median"}, "init_b_dec: expected one of geometric_median"),
        ({"precision": "fp16"}, "precision"),
        ({"warmup_steps": 50}, "warmup_steps"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(ArgumentError, match=message):
        settings(**options)


def test_wrong_orbits_are_refused():
    with pytest.raises(
        ArgumentError, match=r"orbits: expected .* \[M >= 1, 6, 5\]; got torch.float32 of shape \(9, 6, 4\)"
    ):
        groupcc.train(make(), torch.zeros(9, 6, 4), settings())
    with pytest.raises(ArgumentError, match="orbits: expected an orbit store or a tensor"):
        groupcc.train(make(), [1, 2], settings())
