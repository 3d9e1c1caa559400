"""Matryoshka: its loss by hand and by plain autograd, and every form, pose and encoder with it."""

import json

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder
from groupcc.cli.commands import crosscoder_config
from groupcc.cli.parser import build_parser
from groupcc.errors import ArgumentError
from groupcc.models.latents import SparseLatents
from groupcc.models.sparsity.matryoshka import _first, _sizes
from helpers.residual_samples import disturbed
from helpers.tied_samples import crosscoder as tied
from helpers.tied_samples import orbits
from helpers.training_samples import data, make, same, settings, stopped_at

KIND = {"sparsity": "matryoshka", "sparsity_options": {"prefixes": (0.2, 0.6)}}


def test_loss_by_hand():
    """Activations (4, 2, 1) in the unit basis, k = 2. The first latent leaves 2² + 1², two or all of them leave 1²."""
    config = CrosscoderConfig(group="C1", d_in=3, n_latents=3, k=2, aux_k=0, sparsity="matryoshka",
                              sparsity_options={"prefixes": (1 / 3, 2 / 3)})  # fmt: skip
    made = GroupCrosscoder(config)
    with torch.no_grad():
        made.W_dec.copy_(torch.eye(3)[:, None])
        made.W_enc.copy_(torch.eye(3)[:, None])
    losses = made(torch.tensor([[[4.0, 2.0, 1.0]]])).losses
    assert losses["reconstruction"].item() == pytest.approx(1 / 3)
    assert losses["nested"].item() == pytest.approx((5 + 1 + 1) / 3 / 3 - 1 / 3)
    assert losses["total"].item() == pytest.approx((5 + 1 + 1) / 3 / 3)


def test_a_prefix_keeps_its_active_latents_in_order():
    latents = SparseLatents(
        torch.tensor([[3.0, 2.0, 1.0], [5.0, 0.0, 0.0]]),
        torch.tensor([[4, 0, 1], [2, 0, 0]]),
        torch.tensor([[5, 6, 7], [1, 2, 3]]),
    )
    acts, indices, poses = _first(latents, 2)
    assert acts.tolist() == [[2.0, 1.0], [0.0, 0.0]]
    assert indices[0].tolist() == [0, 1]
    assert poses[0].tolist() == [6, 7]
    # The first latent of an example may be outside, and no example may have any inside.
    assert _first(latents, 3).acts.tolist() == [[2.0, 1.0], [5.0, 0.0]]
    assert _first(latents._replace(indices=latents.indices + 2), 2).acts.tolist() == [[0.0], [0.0]]
    assert _first(latents, 5).acts.tolist() == latents.acts.tolist()


@pytest.mark.parametrize(
    ("n_latents", "more", "prefixes", "sizes"),
    [
        (64, {}, (1 / 16, 1 / 8, 1 / 4, 1 / 2), [4, 8, 16, 32]),
        (100, {}, (0.07, 0.28), [7, 28]),
        (4, {}, (1 / 16, 1 / 8, 1 / 4, 1 / 2), [1, 2]),  # of equal sizes one
        (4, {}, (0.5, 0.99), [2]),  # the whole is there anyway
        (1, {}, (0.5,), []),
        (10, {"tied": True}, (0.15, 0.5), [2, 5]),  # base latents
        (60, {"pose": "max"}, (0.15, 0.5), [12, 30]),  # the same, each as six latents in a row
    ],
)
def test_sizes_of_prefixes(n_latents, more, prefixes, sizes):
    options = {"prefixes": prefixes}
    made = make(n_latents=n_latents, k=1, sparsity="matryoshka", sparsity_options=options, **more)
    assert _sizes(made) == sizes


def reference(made, acts):
    """The total loss without the auxiliary one, by plain autograd on the dictionary with its atoms written out."""
    atoms, H = made.form.atoms(made), made.n_poses
    pre = torch.einsum("ngd,agd->na", acts[:, : atoms.W_enc.shape[1]], atoms.W_enc) + atoms.b_enc
    if made.config.pose == "max":
        strongest = pre.unflatten(1, (-1, len(made.group))).argmax(2)
        chosen = torch.nn.functional.one_hot(strongest, len(made.group)).flatten(1).bool()
        pre = torch.where(chosen, pre, -1.0)
    lowest = pre.flatten().topk(len(acts) * made.config.k).values[-1]
    f = torch.where(pre >= lowest, pre, 0).relu()
    L = made.config.n_latents
    together = made.config.form.together(made.group)
    errors = []
    for share in (*made.config.sparsity_options["prefixes"], 1.0):
        size = round(share * L / together) * together * H
        reconstruction = torch.einsum("na,agd->ngd", f[:, :size], atoms.W_dec[:size]) + atoms.b_dec
        errors.append((reconstruction - acts).square().mean())
    return sum(errors) / len(errors)


FORMS = [
    {"tied": False},
    {"tied": False, "encoder": "identity"},
    {"tied": False, "pose": "max", "n_latents": 40},
    {"tied": True},
    {"tied": True, "encoder": "identity"},
    {"tied": "residual"},
]


@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("options", FORMS, ids=str)
def test_every_form_has_the_gradients_of_plain_autograd(options, backend):
    made = tied(**KIND, k=2, aux_k=0, **{"n_latents": 10, **options}).double()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.startswith("residual_"):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    acts = 4 * orbits(made, N=60).double()
    with groupcc.use_backend(backend):
        losses = made(acts).losses
        losses["total"].backward()
    ours = {name: parameter.grad.clone() for name, parameter in made.named_parameters()}
    made.zero_grad()
    total = reference(made, acts)
    total.backward()
    torch.testing.assert_close(losses["total"], total)
    assert losses["nested"].abs() > 0.01
    for name, parameter in made.named_parameters():
        torch.testing.assert_close(ours[name], parameter.grad, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("options", [{"tied": False, "n_latents": 10}, {"tied": True}, {"tied": "residual"}], ids=str)
def test_gradients_are_those_of_finite_differences(options):
    """Steps of 1e-6 leave the choice as it is."""
    small = {"group": "C2", "d_in": 2, "n_latents": 5, "k": 1, "aux_k": 0}
    made = tied(**KIND, **(small | options)).double()
    names, parameters = zip(*made.named_parameters(), strict=True)
    acts = 4 * orbits(made, N=6).double()

    def total(*values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(made, given, acts).losses["total"]

    assert torch.autograd.gradcheck(total, [parameter.detach().requires_grad_() for parameter in parameters])


@pytest.mark.parametrize("options", [{}, {"tied": True, "n_latents": 6, "pose": "nms"}], ids=str)
def test_with_the_whole_dictionary_alone_it_is_batchtopk_to_the_bit(options):
    def trained(**kind):
        return groupcc.train(make(**kind, **options), data(), settings(lr=0.01)).crosscoder

    plain = trained(sparsity="batchtopk")
    assert same(trained(sparsity="matryoshka", sparsity_options={"prefixes": ()}), plain)
    assert not same(trained(**KIND), plain)


def test_choosing_is_batchtopks():
    nested, plain = make(**KIND), make(sparsity="batchtopk")
    for mode in (True, False):
        for made in (nested, plain):
            made.train(mode).threshold.fill_(1.5)
        ours, theirs = nested.encode(data(50) / 10), plain.encode(data(50) / 10)
        assert torch.equal(ours.acts, theirs.acts)
        assert torch.equal(ours.indices, theirs.indices)
    with torch.no_grad():
        nested.train()(data(50))
    assert nested.threshold != 1.5


@pytest.mark.parametrize("made", [lambda: tied(**KIND), lambda: disturbed(**KIND)], ids=["tied", "residual"])
@pytest.mark.parametrize("training", [True, False])
def test_untie_has_the_same_losses(made, training):
    made = made().train(training)
    made.threshold.fill_(0.5)
    untied, acts = made.untie(), 4 * orbits(made)
    ours, theirs = made(acts).losses, untied(acts).losses
    assert set(ours) == set(theirs)
    for name in ("total", "reconstruction", "nested"):
        torch.testing.assert_close(theirs[name], ours[name])
    assert ours["nested"].abs() > 0.01


@pytest.mark.parametrize("options", [{}, {"tied": True, "n_latents": 5}, {"tied": "residual", "n_latents": 5}], ids=str)
def test_files_hold_it(options, tmp_path):
    made = make(**KIND, **options)
    made.threshold.fill_(2.0)
    made.eval()
    directory = made.save_pretrained(tmp_path / "c")
    assert json.loads((directory / "cfg.json").read_text())["config"]["sparsity_options"] == {"prefixes": [0.2, 0.6]}
    again = GroupCrosscoder.from_pretrained(directory)
    assert again.config == made.config
    assert same(again, made)
    assert torch.equal(again(data(20)).losses["total"], made(data(20)).losses["total"])


@pytest.mark.parametrize("options", [{}, {"tied": True, "n_latents": 5, "pose": "nms"}], ids=str)
def test_a_run_that_was_stopped_ends_with_the_same_bits(options, tmp_path, monkeypatch):
    run = {"steps": 24, "lr": 0.01, "resample_every": 4, "log_every": 5}

    def trained(**more):
        return groupcc.train(make(**KIND, dead_after=64, **options), data(), settings(**run, **more)).crosscoder

    whole = trained(out=tmp_path / "whole", checkpoint_every=100)
    assert same(stopped_at(17, lambda: trained(out=tmp_path / "stopped", checkpoint_every=5), monkeypatch), whole)


def test_the_first_latents_learn_to_stand_alone():
    """Of 24 latents the first 14, for data of 12 atoms."""

    def alone(**kind):
        acts = data(1000, seed=1)
        made = groupcc.train(make(**kind), acts, settings(steps=300, batch_size=128, lr=1e-2)).crosscoder.eval()
        with torch.no_grad():
            left = made.decode(_first(made.encode(acts), 14)) - acts
        return float(left.square().sum() / (acts - acts.mean(0)).square().sum())

    assert alone(**KIND) < 0.5 * alone(sparsity="batchtopk")


def test_baseline_and_autocast_train():
    run = settings(steps=20, lr=1e-2)
    half = groupcc.train(make(**KIND), data(), settings(steps=20, lr=1e-2, precision="bf16")).crosscoder
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    sae = groupcc.training.train_sae(data(), make(**KIND).config, run).crosscoder
    regressed = groupcc.training.regress_decoder(sae, data(), "D3", run)
    assert torch.equal(regressed.encode(data()).acts, sae.encode(data()[:, :1]).acts)


def test_the_command_line_takes_prefixes():
    words = ["train", "--orbits", "a", "--out", "b", "--latents", "64", "--sparsity", "matryoshka"]
    args = build_parser().parse_args([*words, "--sparsity-option", "prefixes=0.1,0.3"])
    assert dict(crosscoder_config(args, "D3", 5).sparsity_options) == {"prefixes": (0.1, 0.3)}
    default = crosscoder_config(build_parser().parse_args(words), "D3", 5)
    assert dict(default.sparsity_options) == {"prefixes": (1 / 16, 1 / 8, 1 / 4, 1 / 2)}


@pytest.mark.parametrize("prefixes", [0.5, (0.5, 0.25), (0.5, 1.0), (0.0, 0.5), (8, 16), ("a",)])
def test_options_out_of_range_are_named(prefixes):
    expected = r"sparsity_options\['prefixes'\]: expected rising shares above 0 and below 1; got"
    with pytest.raises(ArgumentError, match=expected):
        CrosscoderConfig(**{**make(**KIND).config.to_dict(), "sparsity_options": {"prefixes": prefixes}})
    with pytest.raises(ArgumentError, match="at most n_latents = 24"):
        make(**KIND, k=25)
