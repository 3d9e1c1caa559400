"""Tied in part: atoms with residuals, their share, files, analysis, options."""

import json
import math
import re

import pytest
import torch

import groupcc
from groupcc import GroupCrosscoder
from groupcc.cli.commands import crosscoder_config
from groupcc.cli.parser import build_parser
from groupcc.errors import ArgumentError
from groupcc.groups.translate import translation_table
from groupcc.models.forms.tied import translates
from helpers.residual_samples import disturbed, make, orbits
from helpers.training_samples import D, G, data, same


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
@pytest.mark.parametrize("pose", ["max", "nms"])
def test_starts_as_the_tied_one(encoder, pose):
    made, tied = make(encoder=encoder, pose=pose), make(encoder=encoder, pose=pose, tied=True)
    assert made.residual_W_dec.shape == (6, G, G, D)
    assert made.residual_b_enc.shape == (6, G)
    assert made.residual_b_dec.shape == (G, D)
    # An "identity" encoder's poses are free already.
    shapes = {name: tuple(parameter.shape) for name, parameter in made.named_parameters()}
    assert shapes.get("residual_W_enc") == ((6, G, G, D) if encoder == "orbit" else None)
    assert made.config.n_atoms == 6 * G
    assert "tied, pose=" in repr(made)
    assert "residual_penalty=" in repr(made)
    ours, theirs = made(orbits()), tied(orbits())
    torch.testing.assert_close(ours.latents.acts, theirs.latents.acts)
    assert torch.equal(ours.latents.indices, theirs.latents.indices)
    assert torch.equal(ours.latents.poses, theirs.latents.poses)
    torch.testing.assert_close(ours.losses["total"], theirs.losses["total"])
    assert made.residual_share().tolist() == [0] * 6


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
def test_atoms_are_translates_and_residuals(encoder):
    made = disturbed(encoder=encoder)
    untied = made.untie()
    acts = orbits()
    latents = made.encode(acts)
    expected = made.b_dec + made.residual_b_dec + torch.zeros(len(acts), G, D)
    table = translation_table(made.group)
    for h in range(G):
        decoder = made.W_dec[:, table[h]] + made.residual_W_dec[:, h]
        torch.testing.assert_close(untied.W_dec[h::G], decoder)
        reader = made.W_enc[:, table[h]]
        if encoder == "orbit":
            read = torch.einsum("ngd,lgd->nl", acts, reader + made.residual_W_enc[:, h])
        else:
            read = acts[:, 0] @ reader[:, 0].t()
        torch.testing.assert_close(made.pre_acts(acts)[:, :, h], read + made.b_enc + made.residual_b_enc[:, h])
        for n, k in ((latents.poses == h) & (latents.acts > 0)).nonzero().tolist():
            expected[n] += latents.acts[n, k] * decoder[latents.indices[n, k]]
    torch.testing.assert_close(made.decode(latents), expected)


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
@pytest.mark.parametrize("pose", ["max", "nms"])
@pytest.mark.parametrize("sparsity", ["topk", "batchtopk", "l1"])
@pytest.mark.parametrize("training", [True, False])
def test_untie_has_the_same_outputs(encoder, pose, sparsity, training):
    made = disturbed(encoder=encoder, pose=pose, sparsity=sparsity, l1_coefficient=0.1, pose_distance=0.0)
    made.threshold.fill_(0.3)
    made.train(training)
    untied = made.untie()
    assert untied.config.tied is False
    assert untied.config.residual_penalty is None
    ours, theirs = made(orbits()), untied(orbits())
    torch.testing.assert_close(theirs.reconstruction, ours.reconstruction)
    for name in ("total", "reconstruction", *(["l1"] if sparsity == "l1" else [])):
        torch.testing.assert_close(theirs.losses[name], ours.losses[name])
    active = ours.latents.acts > 0
    assert active.any()
    torch.testing.assert_close(theirs.latents.acts, ours.latents.acts)
    assert torch.equal(theirs.latents.indices[active], (ours.latents.indices * G + ours.latents.poses)[active])


def test_suppression_reads_the_upright_pose():
    """As `untie` has it: a latent whose upright atom is the same in every block is taken once, whatever its base is."""
    made = disturbed(pose="nms", pose_distance=0.0, k=5)
    with torch.no_grad():
        made.residual_W_dec[:, 0] = 1 - made.W_dec
    ours, theirs = made.encode(orbits()), made.untie().encode(orbits())
    active = ours.acts > 0
    assert torch.equal(theirs.indices[active], (ours.indices * G + ours.poses)[active])
    for row, kept in zip(ours.indices, active, strict=True):
        assert len(set(row[kept].tolist())) == int(kept.sum())


@pytest.mark.parametrize("tied", [True, "residual"])
def test_dead_base_latents_explain_the_residual(tied):
    """‖e − ê‖² / ‖e‖², ê of the aux_k strongest dead base latents, each in its strongest pose."""
    made = disturbed(tied=tied, k=1, dead_after=1, aux_k=2)
    acts = orbits(3)
    atoms, pre, out = made.untie().W_dec.view(6, G, G, D), made.pre_acts(acts), made(acts)
    dead = made.since_fired.nonzero().flatten().tolist()
    assert len(dead) >= 3
    strongest, pose = pre.max(2)
    left = 0
    for n, missed in enumerate(-out.residual):
        chosen = sorted(dead, key=lambda latent: -float(strongest[n, latent].detach()))[:2]
        left += (missed - sum(strongest[n, i].relu() * atoms[i, pose[n, i]] for i in chosen)).square().sum()
    torch.testing.assert_close(out.losses["aux"], left / out.residual.square().sum())


def test_gradients_lie_along_the_spheres():
    """At unit norm no base latent or atom is asked to grow; and what is clipped is the mean of both squared norms."""
    made = disturbed(residual_penalty=3.0)
    made.normalise_decoder_()
    acts = orbits(64)
    made(acts).losses["total"].backward()
    raw = {name: parameter.grad.clone() for name, parameter in made.named_parameters()}
    made.form.prepare_gradients_(made)
    atoms, base = made.untie().W_dec.detach().view(6, G, G, D), made.W_dec.detach()
    assert float(made.residual_share().min()) > 0.1
    assert float((raw["W_dec"] * base).sum((1, 2)).abs().max()) > 1e-3
    assert float((made.W_dec.grad * base).sum((1, 2)).abs().max()) < 1e-6
    assert float((made.residual_W_dec.grad * atoms).sum((2, 3)).abs().max()) < 1e-6
    torch.testing.assert_close(made.W_enc.grad, raw["W_enc"] * 0.75**0.5)
    torch.testing.assert_close(made.residual_W_enc.grad, raw["residual_W_enc"] * 0.25**0.5)


def test_share():
    made = disturbed()
    atoms = made.untie().W_dec.detach().view(6, G, G, D)
    # Least squares over all base latents at once, without the group's algebra.
    design = translates(torch.eye(G * D).view(-1, G, D), made.group).view(G * D, -1).t().double()
    flat = atoms.flatten(1).t().double()
    left = flat - design @ torch.linalg.lstsq(design, flat).solution
    expected = left.square().sum(0) / flat.square().sum(0)
    torch.testing.assert_close(made.residual_share(), expected.float())
    assert not made.residual_share().requires_grad
    # Moving what poses share from residual to base changes nothing.
    moved = torch.randn(6, G, D)
    with torch.no_grad():
        made.W_dec += moved
        made.residual_W_dec -= translates(moved, made.group).view(6, G, G, D)
    torch.testing.assert_close(made.residual_share(), expected.float())
    with torch.no_grad():
        made.W_dec[2], made.residual_W_dec[2] = 0, 0
    assert made.residual_share()[2] == 0
    with pytest.raises(ArgumentError, match="expected a tied crosscoder; got tied=False"):
        make(tied=False).residual_share()


@pytest.mark.parametrize("penalty", [None, 0.0, 2.5, math.inf])
def test_files(tmp_path, penalty):
    made = disturbed(residual_penalty=penalty)
    again = GroupCrosscoder.from_pretrained(made.save_pretrained(tmp_path / "cc"))
    assert again.config == made.config
    assert same(again, made)
    text = (tmp_path / "cc" / "cfg.json").read_text()
    held = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    expected = 0.3 * (G * D) ** 0.5 if penalty is None else "inf" if penalty == math.inf else penalty
    assert held["config"]["residual_penalty"] == expected
    torch.testing.assert_close(again(orbits()).reconstruction, made.eval()(orbits()).reconstruction, rtol=0, atol=0)


def test_scale_folds():
    made = disturbed()
    scaled = made(4 * orbits()).reconstruction
    made.fold_scale_(4.0)
    torch.testing.assert_close(made(orbits()).reconstruction, scaled / 4)


def test_encode_maps():
    made = disturbed()
    maps = torch.randn(2, G, 5, 5, D)
    points = 1 + 2 * torch.rand(G, 4, 2)
    ours, gathered = made.encode_maps(maps, points), made.encode(groupcc.ops.orbit_gather(maps, points, "bspline"))
    for one, other in zip(ours, gathered, strict=True):
        torch.testing.assert_close(one, other)


def test_analysis(tmp_path):
    made = disturbed()
    atlas = groupcc.analyze(made, data())
    torch.testing.assert_close(atlas.residual_share, made.residual_share())
    column = [row["residual_share"] for row in atlas.table()]
    assert column == pytest.approx(made.residual_share().tolist(), abs=1e-5)
    loaded = groupcc.Atlas.load(atlas.save(tmp_path / "atlas"))
    assert torch.equal(loaded.residual_share, atlas.residual_share)
    assert groupcc.analyze(make(tied=True)).residual_share.tolist() == [0] * 6
    untied = groupcc.analyze(made.untie())
    assert untied.residual_share is None
    assert "residual_share" not in untied.table()[0]
    assert groupcc.Atlas.load(untied.save(tmp_path / "untied")).residual_share is None


@pytest.mark.parametrize(
    ("words", "tied", "penalty"),
    [
        ([], False, None),
        (["--tied"], True, None),
        (["--tied", "--pose", "nms"], True, None),
        (["--tied", "residual"], "residual", 0.3 * (G * D) ** 0.5),
        (["--tied", "residual", "--residual-penalty", "inf"], "residual", math.inf),
    ],
)
def test_command_line(words, tied, penalty):
    args = build_parser().parse_args(["train", "--orbits", "a", "--out", "b", *words])
    config = crosscoder_config(args, "D3", D)
    assert config.tied == tied
    assert config.residual_penalty == penalty


@pytest.mark.parametrize(
    "settings",
    [
        {"residual_penalty": -1},
        {"residual_penalty": math.nan},
        {"residual_penalty": "much"},
        {"residual_penalty": True},
        {"tied": True, "residual_penalty": 1.0},
        {"tied": False, "residual_penalty": 0},
    ],
)
def test_configuration_errors(settings):
    with pytest.raises(ArgumentError, match='residual_penalty: expected a number >= 0, with tied="residual" alone'):
        make(**settings)


def test_other_ways_of_tying_are_refused():
    message = (
        """tied: expected True, False or "residual"; got 'partly'. True ties the poses, "residual" ties them in part."""
    )
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
        make(tied="partly")


def test_infinity_as_a_text_is_told_from_infinity():
    with pytest.raises(ArgumentError, match=r"got 'inf' with tied='residual'\. .* float\(\"inf\"\) is as tied"):
        make(residual_penalty="inf")
