"""JumpReLU: its gradients by hand and by plain autograd, its thresholds, and every form, pose and encoder with it."""

import math

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.errors import ArgumentError
from groupcc.models.forms.poses import neighbours
from groupcc.models.sparsity.jumprelu import _Active, _Jump
from helpers.residual_samples import disturbed
from helpers.tied_samples import crosscoder as tied
from helpers.tied_samples import orbits
from helpers.training_samples import D, G, L, data, make, same, settings, stopped_at

OPTIONS = {"coefficient": 0.01, "threshold": 0.05, "bandwidth": 0.08}
KIND = {"sparsity": "jumprelu", "sparsity_options": OPTIONS}


def test_gradients_by_hand():
    """θ = 1, ε = 0.5: the rectangle is from 0.75 to 1.25, and −θ/ε = −1/ε = −2."""
    z = torch.tensor([0.5, 0.8, 1.2, 1.3, -0.2], dtype=torch.float64, requires_grad=True)
    theta = torch.ones(5, dtype=torch.float64, requires_grad=True)
    epsilon = torch.tensor(0.5, dtype=torch.float64)
    for op, value, to_z, to_theta in (
        (_Jump, [0, 0, 1.2, 1.3, 0], [0, 0, 30, 40, 0], [0, -40, -60, 0, 0]),
        (_Active, [0, 0, 1, 1, 0], None, [0, -40, -60, 0, 0]),
    ):
        out = op.apply(z, theta, epsilon)
        assert out.tolist() == value
        gradients = torch.autograd.grad(
            out, (z, theta), torch.tensor([10.0, 20, 30, 40, 50], dtype=torch.float64), allow_unused=True
        )
        assert (None if gradients[0] is None else gradients[0].tolist()) == to_z
        assert gradients[1].tolist() == to_theta
    # Scaled by θ = 2 the first grows, the second does not.
    z, theta = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (2.1, 2.0))
    assert torch.autograd.grad(_Jump.apply(z, theta, epsilon), theta)[0].item() == -4
    assert torch.autograd.grad(_Active.apply(z, theta, epsilon), theta)[0].item() == -2
    # A rectangle that reaches below 0 ends there.
    z, theta = (torch.tensor([v], dtype=torch.float64, requires_grad=True) for v in (-0.01, 0.1))
    assert torch.autograd.grad(_Jump.apply(z, theta, epsilon), theta)[0].item() == 0


def test_on_average_they_are_the_gradient_of_the_expected_loss():
    """Of pre-activations spread evenly, E[(f − t)² + λ·H] falls or rises with θ as the mean of the estimates says."""
    z = torch.linspace(0, 2, 400_001, dtype=torch.float64)
    epsilon = torch.tensor(0.02, dtype=torch.float64)

    def loss(theta, target, penalty):
        theta_N = theta.expand_as(z)
        return (
            (_Jump.apply(z, theta_N, epsilon) - target).square() + penalty * _Active.apply(z, theta_N, epsilon)
        ).mean()

    for at, target, penalty in ((0.7, 1.0, 0.1), (1.2, 1.0, 0.3), (0.5, 0.0, 0.0), (1.0, 1.5, 1.0)):
        theta = torch.tensor(at, dtype=torch.float64, requires_grad=True)
        found = torch.autograd.grad(loss(theta, target, penalty), theta)[0].item()
        above, below = (loss(torch.tensor(at + d, dtype=torch.float64), target, penalty).item() for d in (0.01, -0.01))
        assert found == pytest.approx((above - below) / 0.02, rel=0.02)
        assert abs(found) > 0.05


def reference(made, acts, progress=1.0):
    """The total loss without the auxiliary one, all acts, and which are inside, by plain autograd on the dictionary.

    Values come from detached parts, gradients to θ from terms that are 0 in value. With poses the strongest counts.
    """
    atoms, H = made.form.atoms(made), made.n_poses
    options = made.config.sparsity_options
    unit = math.sqrt(acts.shape[1] * acts.shape[2])
    epsilon = unit * options["bandwidth"]
    pre = torch.einsum("ngd,agd->na", acts[:, : atoms.W_enc.shape[1]], atoms.W_enc) + atoms.b_enc
    theta = (unit * made.log_threshold.exp()).repeat_interleave(H)
    if made.config.pose == "max":
        strongest = pre.unflatten(1, (-1, len(made.group))).argmax(2)
        chosen = torch.nn.functional.one_hot(strongest, len(made.group)).flatten(1).bool()
        pre = torch.where(chosen, pre, -1.0)
    active = (pre > theta).to(pre).detach()
    inside = ((pre - theta).abs() < epsilon / 2).to(pre).detach() * (pre > 0)
    moved = (theta - theta.detach()) * inside
    f = pre * active - theta.detach() / epsilon * moved
    count = (active - moved / epsilon).sum(1).mean()
    error = (torch.einsum("na,agd->ngd", f, atoms.W_dec) + atoms.b_dec - acts).square().mean()
    return error + options["coefficient"] * min(1.0, progress / options["warmup"]) * count, f, inside.bool()


FORMS = [
    {"tied": False},
    {"tied": False, "encoder": "identity"},
    {"tied": False, "pose": "max", "n_latents": 24},
    {"tied": True},
    {"tied": True, "encoder": "identity"},
    {"tied": "residual"},
]


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_every_form_has_the_gradients_of_plain_autograd(options, backend):
    wide = {"sparsity": "jumprelu", "sparsity_options": OPTIONS | {"bandwidth": 0.3, "threshold": 0.3}}
    made = tied(**wide, k=1, aux_k=0, **options).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        made.log_threshold += 0.2 * torch.randn(made.log_threshold.shape, generator=generator)
        for name, parameter in made.named_parameters():
            if name.startswith("residual_"):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    acts = 4 * orbits(made, N=60).double()
    with groupcc.use_backend(backend):
        out = made(acts, progress=0.05)
        out.losses["total"].backward()
    found = {name: parameter.grad.clone() for name, parameter in made.named_parameters()}
    made.zero_grad()
    total, f, inside = reference(made, acts, progress=0.05)
    total.backward()
    torch.testing.assert_close(out.losses["total"], total)
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, msg=lambda m, name=name: f"{name}: {m}")
    assert (found["log_threshold"] != 0).float().mean() >= 0.5
    # Entries inside the rectangle are there, with act 0, behind the active ones.
    acts_NK = out.latents.acts
    assert out.latents.l0.tolist() == (f > 0).sum(1).tolist()
    assert bool((acts_NK[:, :-1] >= acts_NK[:, 1:]).all())
    assert (inside & (f == 0)).any()
    assert (inside & (f > 0)).any()


@pytest.mark.parametrize("options", [{"tied": True}, {"tied": "residual"}, {"tied": False, "n_latents": 24}], ids=str)
def test_with_suppression_what_is_left_is_chosen_by_its_threshold(options):
    made = tied(**KIND, pose="nms", pose_distance=0.0, k=1, **options)
    with torch.no_grad():
        made.log_threshold += 0.3 * torch.randn(made.log_threshold.shape, generator=torch.Generator().manual_seed(1))
    acts = 4 * orbits(made, N=20)
    out = made(acts)
    out.losses["total"].backward()
    assert made.log_threshold.grad.abs().max() > 0
    made.eval()
    latents = made.encode(acts)
    theta = made.threshold * made.log_threshold.detach().exp()
    active = latents.acts > 0
    assert active.any()
    assert bool((latents.acts[active] > theta[latents.indices[active]]).all())
    # Nothing above its threshold is left out, but what a stronger neighbour suppresses.
    pre = made.pre_acts(acts).flatten(1)
    loud = pre > theta.repeat_interleave(made.n_poses)
    number = made.form.atom_numbers(latents, made.group)
    taken = torch.zeros_like(loud).scatter(1, number, active)
    assert not bool((taken & ~loud).any())
    upright = made.W_dec if made.n_poses > 1 else made.W_dec.unflatten(0, (-1, 8))[:, 0]
    upright = upright + made.residual_W_dec[:, 0] if options["tied"] == "residual" else upright
    near = neighbours(upright, made.group, 0.0, made.config.pose_similarity)
    cayley, inverse = torch.tensor(made.group.cayley), torch.tensor(made.group.inverse)
    for n, atom in (loud & ~taken).nonzero().tolist():
        base, pose = divmod(atom, 8)
        others = [p for p in range(8) if taken[n, base * 8 + p] and bool(near[base, cayley[inverse[p], pose]])]
        assert others
        assert max(float(pre[n, base * 8 + p]) for p in others) >= float(pre[n, atom])


def test_untied_it_is_a_plain_sparse_autoencoder_with_thresholds():
    made = make(**KIND).eval()
    acts = data(50) / 10
    theta = made.threshold * made.log_threshold.exp()
    assert theta.tolist() == pytest.approx([0.05 * math.sqrt(G * D)] * L)
    pre = made.pre_acts(acts)
    torch.testing.assert_close(made.encode(acts).to_dense(L), pre * (pre > theta))
    out = made(acts)
    torch.testing.assert_close(out.losses["l0"], (pre > theta).float().sum(1).mean())
    torch.testing.assert_close(out.losses["total"], out.losses["reconstruction"] + 0.01 * out.losses["l0"])


@pytest.mark.parametrize("progress", [0.0, 0.05, 0.1, 0.7])
def test_the_penalty_rises_over_the_warm_up(progress):
    made = make(**KIND, aux_k=0)
    losses = made(data(20) / 10, progress=progress).losses
    weight = 0.01 * min(1.0, progress / 0.1)
    torch.testing.assert_close(losses["total"], losses["reconstruction"] + weight * losses["l0"])


@pytest.mark.parametrize("options", [{}, {"tied": True, "n_latents": 4}, {"tied": "residual", "n_latents": 4}], ids=str)
def test_thresholds_fold_with_the_scale_and_are_saved(options, tmp_path):
    made = make(**KIND, **options)
    made.normalise_decoder_()
    with torch.no_grad():
        made.log_threshold += torch.linspace(-1, 1, len(made.log_threshold))
    made.eval()
    acts, before = data(30), {name: value.clone() for name, value in made.state_dict().items()}
    scaled = made.encode(acts * 0.125)
    made.fold_scale_(0.125)
    plain = made.encode(acts)
    assert torch.equal(plain.acts * 0.125, scaled.acts)
    again = GroupCrosscoder.from_pretrained(made.save_pretrained(tmp_path / "c"))
    assert again.config == made.config
    assert same(again, made)
    assert torch.equal(again.encode(acts).acts, plain.acts)
    made.fold_scale_(8.0)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())


@pytest.mark.parametrize("made", [lambda: tied(**KIND), lambda: disturbed(**KIND)], ids=["tied", "residual"])
@pytest.mark.parametrize("training", [True, False])
def test_untie_has_the_same_outputs(made, training):
    made = made().train(training)
    with torch.no_grad():
        made.log_threshold += torch.linspace(-0.5, 0.5, len(made.log_threshold))
    untied, acts = made.untie(), 4 * orbits(made)
    ours, theirs = made(acts), untied(acts)
    for name in ("total", "reconstruction", "l0"):
        torch.testing.assert_close(theirs.losses[name], ours.losses[name])
    torch.testing.assert_close(theirs.latents.acts, ours.latents.acts)


def test_thresholds_start_anew_with_their_latents():
    made = make(**KIND)
    with torch.no_grad():
        made.log_threshold += 1
    made.restart_latents_(torch.tensor([2, 7]), torch.randn(2, G, D))
    fresh = (made.log_threshold - math.log(0.05)).abs() < 1e-6
    assert fresh.nonzero().flatten().tolist() == [2, 7]


@pytest.mark.parametrize("options", [{}, {"tied": True, "n_latents": 4, "pose": "nms"}], ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bits(options, tmp_path, monkeypatch):
    """Folding for a checkpoint leaves no trace in the thresholds, whatever the scale is."""
    run = {"steps": 24, "lr": 0.01, "resample_every": 4, "log_every": 5}

    def trained(**more):
        return groupcc.train(make(**KIND, dead_after=64, **options), data(), settings(**run, **more)).crosscoder

    whole = trained(out=tmp_path / "whole", checkpoint_every=100)
    assert same(stopped_at(17, lambda: trained(out=tmp_path / "stopped", checkpoint_every=5), monkeypatch), whole)
    assert not torch.allclose(whole.log_threshold, whole.log_threshold[:1])


def test_a_larger_weight_makes_fewer_active():
    found = []
    for coefficient in (1e-4, 1e-2):
        made = make(sparsity="jumprelu", sparsity_options={"coefficient": coefficient})
        found.append(groupcc.train(made, data(1000), settings(steps=300, batch_size=128, lr=1e-2)).metrics)
    assert found[1]["l0"] < 0.8 * found[0]["l0"]
    assert found[0]["fvu"] < found[1]["fvu"] < 0.5


def test_baseline_and_autocast_train():
    run = settings(steps=20, lr=1e-2)
    half = groupcc.train(make(**KIND), data(), settings(steps=20, lr=1e-2, precision="bf16")).crosscoder
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    sae = groupcc.training.train_sae(data(), make(**KIND).config, run).crosscoder
    regressed = groupcc.training.regress_decoder(sae, data(), "D3", run)
    assert torch.equal(regressed.log_threshold, sae.log_threshold)
    assert torch.equal(regressed.encode(data()).acts, sae.encode(data()[:, :1]).acts)


@pytest.mark.parametrize("name", ["coefficient", "threshold", "bandwidth", "warmup"])
def test_options_out_of_range_are_named(name):
    with pytest.raises(ArgumentError, match=rf"sparsity_options\['{name}'\]: expected a (positive number|share)"):
        CrosscoderConfig(group="D3", d_in=4, n_latents=8, sparsity="jumprelu", sparsity_options={name: 0.0})
