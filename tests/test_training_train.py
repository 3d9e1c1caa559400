"""Training: exact resume after a kill at any step, evaluation, guards, initialisation."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, TrainConfig
from groupcc._files import directory_lock
from groupcc.errors import ArgumentError, DataError, GroupccWarning
from groupcc.training import initialise, trainer
from groupcc.training.data import as_orbits, batch_indices, split_by_image
from groupcc.training.initialise import DataStatistics, geometric_median, initialise_decoder, measure

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
    return TrainConfig(**{**defaults, **options})


def same(a, b):
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


class Images:
    """Orbits of a few images, several positions each."""

    def __init__(self, acts, per_image=10):
        self.acts = acts
        self.image_ids = torch.arange(len(acts)) // per_image
        self.image_names = [f"photo-{i}.png" for i in range(len(acts) // per_image)]

    def __len__(self):
        return len(self.acts)

    def take(self, indices):
        return self.acts[indices]


KILLED_RUN = """
    import os, signal, sys
    sys.path.insert(0, {tests!r})
    import torch
    torch.set_num_threads(1)
    import groupcc
    from groupcc.training import checkpoint, trainer as module
    from test_training_train import data, make, settings

    at, in_write = {at}, {in_write}
    if at is not None:
        step = module._Loop.step
        def dying(self, number, log):
            if number == at:
                os.kill(os.getpid(), signal.SIGKILL)
            step(self, number, log)
        module._Loop.step = dying
    if in_write is not None:
        original = checkpoint.write_files
        def half(crosscoder, directory):
            original(crosscoder, directory)
            if list(directory.parent.glob(f"step-*{{in_write}}")):
                os.kill(os.getpid(), signal.SIGKILL)
        checkpoint.write_files = half
    groupcc.train(make(sparsity={sparsity!r}), data(), settings(out={out!r}))
"""


def run_and_kill(out, sparsity, at=None, in_write=None):
    code = textwrap.dedent(KILLED_RUN).format(
        tests=os.path.dirname(__file__), at=at, in_write=in_write, sparsity=sparsity, out=str(out)
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("sparsity", "at", "in_write"),
    [("topk", 0, None), ("topk", 23, None), ("topk", None, 14), ("batchtopk", 29, None), ("batchtopk", 39, None)],
)
def test_resumed_after_sigkill_equals_uninterrupted(tmp_path, sparsity, at, in_write):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = groupcc.train(make(sparsity=sparsity), data(), settings(out=tmp_path / "whole"))
        run_and_kill(tmp_path / "killed", sparsity, at, in_write)
        resumed = groupcc.train(make(sparsity=sparsity), data(), settings(out=tmp_path / "killed"))
    finally:
        torch.set_num_threads(threads)
    expected = 14 if in_write else (at // 7 * 7 or None)
    assert resumed.resumed_from == expected
    assert same(whole.crosscoder, resumed.crosscoder)
    assert whole.metrics == resumed.metrics

    def read(name):
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        return [{k: v for k, v in r.items() if k != "seconds"} for r in records]

    assert read("whole") == read("killed")
    assert [r["step"] for r in read("killed")] == [10, 20, 30, 40]
    kept = sorted(p.name for p in (tmp_path / "killed" / "checkpoints").iterdir())
    assert kept == ["step-000000035", "step-000000040"]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = groupcc.train(make(), data(), settings(out=tmp_path))
    before = (tmp_path / "metrics.jsonl").read_text()
    again = groupcc.train(make(), data(), settings(out=tmp_path))
    assert again.resumed_from == 40
    assert same(first.crosscoder, again.crosscoder)
    assert (tmp_path / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("file", ["crosscoder.safetensors", "optimizer.safetensors", "state.json", "cfg.json"])
def test_a_damaged_checkpoint_is_passed_over_by_name(tmp_path, file):
    whole = groupcc.train(make(), data(), settings(out=tmp_path))
    newest = tmp_path / "checkpoints" / "step-000000040" / file
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    with pytest.warns(GroupccWarning, match=r"step-000000040 is passed over"):
        resumed = groupcc.train(make(), data(), settings(out=tmp_path))
    assert resumed.resumed_from == 35
    assert same(whole.crosscoder, resumed.crosscoder)


def test_a_damaged_checkpoint_ahead_never_outlives_the_good_ones(tmp_path, monkeypatch):
    groupcc.train(make(), data(), settings(out=tmp_path, checkpoint_every=20))
    ahead = tmp_path / "checkpoints" / "step-000000040"
    (ahead / "state.json").write_text("")
    step = trainer._Loop.step

    def interrupted(self, number, log):
        if number == 35:
            raise KeyboardInterrupt
        step(self, number, log)

    monkeypatch.setattr(trainer._Loop, "step", interrupted)
    with pytest.warns(GroupccWarning, match="passed over"), pytest.raises(KeyboardInterrupt):
        groupcc.train(make(), data(), settings(out=tmp_path, checkpoint_every=10, keep=1))
    assert [p.name for p in ahead.parent.iterdir()] == ["step-000000030"]
    monkeypatch.undo()
    assert groupcc.train(make(), data(), settings(out=tmp_path)).resumed_from == 30


def test_checkpoints_and_result_take_raw_activations(tmp_path):
    result = groupcc.train(make(), data(), settings(out=tmp_path, steps=60))
    loaded = GroupCrosscoder.from_pretrained(tmp_path / "crosscoder")
    checkpoint = GroupCrosscoder.from_pretrained(tmp_path / "checkpoints" / "step-000000060")
    assert same(loaded, result.crosscoder)
    assert same(checkpoint, result.crosscoder)
    assert groupcc.evaluate(loaded, data())["fvu"] < 1
    norms = loaded.W_dec.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(L))


def test_other_settings_in_the_same_directory_are_refused(tmp_path):
    groupcc.train(make(), data(), settings(out=tmp_path))
    with pytest.raises(ArgumentError, match="batch_size: expected 32, as in the run at"):
        groupcc.train(make(), data(), settings(out=tmp_path, batch_size=16))
    with pytest.raises(ArgumentError, match="k: expected 2"):
        groupcc.train(make(k=3), data(), settings(out=tmp_path))
    with pytest.raises(ArgumentError, match="orbits: expected the data of the run"):
        groupcc.train(make(), data(seed=1), settings(out=tmp_path))


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

    def diverging(self, acts):
        out = forward(self, acts)
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
    on_the_way, at_the_end = seen
    assert 6 <= len(on_the_way) <= 13
    assert orbits.image_ids[on_the_way].unique().tolist() == orbits.image_ids[held_out].unique().tolist()
    assert torch.equal(at_the_end, held_out)


def test_resuming_does_not_look_for_b_dec_again(monkeypatch, tmp_path):
    first = groupcc.train(make(), data(), settings(out=tmp_path))
    monkeypatch.setattr(initialise, "geometric_median", None)
    assert same(first.crosscoder, groupcc.train(make(), data(), settings(out=tmp_path)).crosscoder)


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
    statistics = measure(as_orbits(acts, G, D), torch.arange(1000), centre, True, 0)
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
    statistics = DataStatistics(acts[3].clone(), 1.0, 1.0)
    initialise_decoder(crosscoder, orbits, torch.arange(20), statistics, augment, seed=2)
    table = groupcc.group("D3").right_translation
    translates = acts[:, table.tolist() if augment else [list(range(G))]]  # [20, poses, G, D]
    directions = torch.nn.functional.normalize((translates - acts[3]).flatten(2), dim=2).view_as(translates)
    alike = torch.einsum("lgd,npgd->lnp", crosscoder.W_dec.detach(), directions).amax((1, 2))
    kept = (crosscoder.W_dec == fresh).all(2).all(1)
    # Latents whose example is the centre, and those beyond the examples, keep their start.
    assert torch.equal(alike[:20] > 1 - 1e-5, ~kept[:20])
    assert int(kept[:20].sum()) <= 2 if augment else int(kept[:20].sum()) == 2
    assert torch.equal(crosscoder.W_dec[20:], fresh[20:])
    scale = 1 if encoder == "orbit" else G
    blocks = G if encoder == "orbit" else 1
    torch.testing.assert_close(crosscoder.W_enc, crosscoder.W_dec[:, :blocks].permute(1, 2, 0) * scale)


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


def test_two_runs_do_not_share_a_directory(tmp_path):
    with (
        directory_lock(tmp_path, "training into it"),
        pytest.raises(DataError, match="another process is training into it"),
    ):
        groupcc.train(make(), data(), settings(out=tmp_path))
    groupcc.train(make(), data(), settings(out=tmp_path))
