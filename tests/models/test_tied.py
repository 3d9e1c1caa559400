"""Pose-tied crosscoders: closed under the group, one latent for all copies of a shape."""

import dataclasses

import pytest
import torch

import groupcc
from groupcc.groups.translate import translation_table
from groupcc.models import GroupCrosscoder
from groupcc.models.forms.encodings import GroupEncoding
from groupcc.models.forms.poses import autocorrelation, maxima, neighbours
from groupcc.models.forms.tied import translates
from groupcc.ops import _encodings
from groupcc.zoo.planted import planted
from groupcc.zoo.recovery import match
from helpers.tied_samples import crosscoder, orbits


def test_shapes():
    made = crosscoder()
    assert made.W_dec.shape == (5, 8, 6)
    assert made.W_enc.shape == (5, 8, 6)
    assert made.b_dec.shape == (1, 6)
    assert made.config.n_atoms == 40
    assert made.config.pose == "max"
    assert "tied, pose=max" in repr(made)
    acts = orbits(made)
    out = made(acts)
    assert made.pre_acts(acts).shape == (9, 5, 8)
    assert out.reconstruction.shape == acts.shape
    assert out.latents.acts.shape == out.latents.indices.shape == out.latents.poses.shape == (9, 3)


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
def test_pre_acts_are_those_of_the_atoms(encoder):
    made = crosscoder(encoder=encoder)
    acts = orbits(made)
    table = translation_table(made.group, torch.device("cpu"))
    W = made.W_enc
    for h in range(8):
        atom = W[:, table[h]]  # R_h of every latent
        read = torch.einsum("ngd,lgd->nl", acts, atom) if encoder == "orbit" else acts[:, 0] @ atom[:, 0].t()
        torch.testing.assert_close(made.pre_acts(acts)[:, :, h], read + made.b_enc)


def test_decode_is_the_sum_of_atoms():
    made = crosscoder()
    latents = made.encode(orbits(made))
    atoms = translates(made.W_dec, made.group)
    chosen = atoms[latents.indices * 8 + latents.poses]
    torch.testing.assert_close(made.decode(latents), torch.einsum("nk,nkgd->ngd", latents.acts, chosen) + made.b_dec)


@pytest.mark.parametrize("pose", ["max", "nms"])
@pytest.mark.parametrize("sparsity", ["topk", "batchtopk"])
def test_a_translated_orbit_permutes_the_poses(pose, sparsity):
    """The orbit of T_h x, (R_h a)_g = a_{gh}: the same latents and acts, in poses h·pose; reflections too."""
    made = crosscoder(pose=pose, sparsity=sparsity, pose_distance=0.0).double()
    acts = orbits(made).double()
    out = made(acts)
    cayley = torch.from_numpy(made.group.cayley.copy())
    for h in range(8):
        there = made(acts[:, made.group.right_translation[h].tolist()])
        torch.testing.assert_close(there.latents.acts, out.latents.acts)
        active = out.latents.acts > 0
        assert active.any()
        assert torch.equal(there.latents.indices[active], out.latents.indices[active])
        assert torch.equal(there.latents.poses[active], cayley[h, out.latents.poses][active])
        torch.testing.assert_close(there.losses["total"], out.losses["total"])


@pytest.mark.parametrize("encoder", ["orbit", "identity"])
@pytest.mark.parametrize("pose", ["max", "nms"])
@pytest.mark.parametrize("sparsity", ["topk", "batchtopk", "l1"])
@pytest.mark.parametrize("training", [True, False])
def test_untie_has_the_same_outputs(encoder, pose, sparsity, training):
    made = crosscoder(encoder=encoder, pose=pose, sparsity=sparsity, l1_coefficient=0.1, pose_distance=0.0)
    made.threshold.fill_(0.3)
    made.train(training)
    acts = orbits(made)
    untied = made.untie()
    assert untied.config.n_latents == made.config.n_atoms == 40
    assert not untied.config.tied
    ours, theirs = made(acts), untied(acts)
    torch.testing.assert_close(theirs.reconstruction, ours.reconstruction)
    for name in ("total", "reconstruction"):
        torch.testing.assert_close(theirs.losses[name], ours.losses[name])
    active = ours.latents.acts > 0
    torch.testing.assert_close(theirs.latents.acts, ours.latents.acts)
    assert torch.equal(theirs.latents.indices[active], (ours.latents.indices * 8 + ours.latents.poses)[active])


def test_untie_of_an_untied_one():
    with pytest.raises(groupcc.errors.ArgumentError, match="expected a tied crosscoder"):
        crosscoder(tied=False).untie()


def test_gradients_are_those_of_the_atoms():
    """d W of base latents = the sum over poses of what the untied atoms get, each turned back."""
    made = crosscoder(sparsity="topk").double()
    acts = orbits(made).double()
    untied = made.untie()
    made(acts).losses["total"].backward()
    untied(acts).losses["total"].backward()
    table = translation_table(made.group, torch.device("cpu"))

    def turned_back(gradient_AGD):
        back = torch.zeros(5, 8, 6, dtype=torch.float64)
        for h in range(8):
            back.index_add_(1, table[h], gradient_AGD.view(5, 8, 8, 6)[:, h])
        return back

    torch.testing.assert_close(made.W_dec.grad, turned_back(untied.W_dec.grad))
    torch.testing.assert_close(made.W_enc.grad, turned_back(untied.W_enc.grad))
    torch.testing.assert_close(made.b_enc.grad, untied.b_enc.grad.view(5, 8).sum(1))
    torch.testing.assert_close(made.b_dec.grad[0], untied.b_dec.grad.sum(0))


def two_copies():
    """One base latent in poses 0 and 3 of one example, beside a mirror-symmetric one."""
    truth = planted("D8", 24, 2, stabilizers=["C1", "D1"], seed=0)
    made = crosscoder(group="D8", d_in=24, n_latents=2, k=3, pose="nms", pose_distance=0.0, aux_k=0)
    made.W_dec.data, made.b_enc.data[:], made.b_dec.data[:] = truth.base.clone(), 0, 0
    made.W_enc.data = truth.base.clone()
    atoms = translates(truth.base, made.group)
    return made, (2 * atoms[0] + 1.5 * atoms[3] + 1.0 * atoms[16 + 5])[None], truth


def test_nms_finds_two_copies_of_a_shape():
    made, acts, truth = two_copies()
    latents = made.encode(acts)
    assert set(zip(latents.indices[0].tolist(), latents.poses[0].tolist(), strict=True)) >= {(0, 0), (0, 3)}
    # The symmetric one counts once, in one of its two equal poses.
    of_symmetric = latents.poses[0][latents.indices[0] == 1].tolist()
    coset = made.group.cayley[5, truth.stabilizers[1].elements].tolist()
    assert len(of_symmetric) == 1
    assert of_symmetric[0] in coset
    best = dataclasses.replace(made.config, pose="max", k=2)
    made.config = best
    assert made.encode(acts).indices[0].tolist() == [0, 1]


def test_neighbours():
    truth = planted("D8", 24, 2, stabilizers=["C1", "C4"], seed=0)
    group = truth.group
    torch.testing.assert_close(
        autocorrelation(truth.base, group)[:, 2],
        torch.tensor([float((truth.base[0, group.right_translation[2].tolist()] * truth.base[0]).sum()), 1.0]),
    )
    equal = neighbours(truth.base, group, distance=0.0, similarity=0.7)
    assert equal[0].nonzero().flatten().tolist() == [0]
    assert equal[1].nonzero().flatten().tolist() == [0, 2, 4, 6]
    # 45 degrees to either side of this pose, and of each pose equal to it.
    wider = neighbours(truth.base, group, distance=45.0, similarity=0.7)
    assert wider[0].nonzero().flatten().tolist() == [0, 1, 7]
    assert wider[1].nonzero().flatten().tolist() == list(range(8))


def test_suppression():
    """The strongest first, without its neighbours, then the strongest of the rest; equal ones by lower index."""
    z = torch.tensor([[[3.0, 2.0, 1.0, 5.0, 5.0, 1.0], [4.0, 0.0, 0.0, 0.0, 0.0, 4.0]]])
    near = torch.zeros(2, 6, dtype=torch.bool)
    near[0, [0, 1, 5]] = True
    near[1, 0] = True
    made = crosscoder(group="C6", n_latents=2, k=5, pose="nms")
    taken, values = maxima(made, made.sparsity, z, near)
    assert taken.tolist() == [[3, 6, 11, 0, 7]]
    assert values.tolist() == [[5, 4, 4, 3, 0]]
    near[:] = True
    assert maxima(made, made.sparsity, z, near)[1].tolist() == [[5, 4, *[float("-inf")] * 3]]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("sparsity", ["batchtopk", "l1"])
def test_suppression_goes_on_while_something_could_be_chosen(sparsity, training):
    """One row holds all that the batch chooses: more poses than k of it are taken."""
    made = crosscoder(sparsity=sparsity, l1_coefficient=0.1, pose="nms", k=2, pose_distance=0.0).train(training)
    made.threshold.fill_(0.5)
    z = torch.zeros(3, 5, 8)
    z[0] = torch.rand(5, 8, generator=torch.Generator().manual_seed(0)) + 1
    latents = made.form.selection.select(made, z, lambda: made.W_dec).latents
    expected = 6 if sparsity == "batchtopk" and training else 40
    assert int((latents.acts[0] > 0).sum()) == expected
    active = latents.acts > 0
    assert torch.equal(latents.acts[active], z[torch.where(active)[0], latents.indices[active], latents.poses[active]])


def test_files(tmp_path):
    made = crosscoder(pose="nms")
    again = GroupCrosscoder.from_pretrained(made.save_pretrained(tmp_path / "cc"))
    assert again.config == made.config
    acts = orbits(made)
    torch.testing.assert_close(again(acts).reconstruction, made.eval()(acts).reconstruction, rtol=0, atol=0)


def test_encode_maps():
    made = crosscoder()
    maps = torch.randn(2, 8, 5, 5, 6)
    points = 1 + 2 * torch.rand(8, 4, 2)
    ours, gathered = made.encode_maps(maps, points), made.encode(groupcc.ops.orbit_gather(maps, points, "bspline"))
    for one, other in zip(ours, gathered, strict=True):
        torch.testing.assert_close(one, other)


def test_scale_folds():
    made = crosscoder()
    acts = orbits(made)
    scaled = made(4 * acts).reconstruction
    made.fold_scale_(4.0)
    torch.testing.assert_close(made(acts).reconstruction, scaled / 4)


def test_dead_base_latents_explain_the_residual():
    made = crosscoder(n_latents=8, k=1, dead_after=1, aux_k=2)
    made.since_fired.fill_(5)
    made.since_fired[:2] = 0
    acts = orbits(made)
    out = made(acts)
    assert float(out.losses["aux"].detach()) > 0
    out.losses["aux"].backward()
    got = made.W_dec.grad.flatten(1).norm(dim=1) > 0
    assert got.any()
    assert not got[(made.since_fired == 0).nonzero().flatten()].any()


@pytest.mark.parametrize("settings", [{}, {"pose": "nms"}, {"encoder": "identity"}, {"tied": "residual"}], ids=str)
@pytest.mark.parametrize("backend", ["reference", "auto"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(bad, backend, settings):
    """Training and encoding; infinite weights are not the activations' fault."""
    made = crosscoder(**settings)
    acts = orbits(made)
    with torch.no_grad():
        made.W_enc[0, 0, 0] = float("inf")
    with groupcc.ops.use_backend(backend):
        made.encode(acts)
        acts[3, 0, 1] = acts[5, 0, 2] = bad
        for call in (made, made.encode, made.eval().encode):
            with pytest.raises(groupcc.errors.ArgumentError, match=r"acts: expected finite .* in 2 rows.* row 3"):
                call(acts)


@pytest.mark.parametrize("settings", [{"encoder": "identity"}, {"tied": "residual"}, {}], ids=str)
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_frozen_encoder_changes_no_loss(settings, backend):
    """Without a gradient to the encoder the dead base latents' acts are still the encoder's own."""
    made = crosscoder(n_latents=8, k=1, dead_after=1, aux_k=2, **settings)
    if settings.get("tied") == "residual":
        made.residual_W_enc.data.normal_(generator=torch.Generator().manual_seed(4))
    acts, losses = orbits(made), []
    for free in (True, False):
        made.since_fired.fill_(5)
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(free or "enc" not in name)
        with groupcc.ops.use_backend(backend):
            losses.append(made(acts).losses["aux"].detach())
    assert float(losses[0]) > 0
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("pose", ["max", "nms"])
@pytest.mark.parametrize("sparsity", ["topk", "batchtopk"])
@pytest.mark.parametrize(("kind", "training"), [(True, True), (True, False), ("residual", True)])
def test_gradients_to_chosen_poses_are_those_through_all_of_them(sparsity, pose, kind, training, monkeypatch):
    """Losses and gradients with `encode_at`, and without; the dead ones' too. A residual always goes without."""
    pytest.importorskip("groupcc._C")
    found, chosen, through_all = [], [], []
    encode_at, correlate = _encodings.ENCODE_AT, groupcc.ops.group_correlate

    class EncodeAt:
        has_kernels_for = encode_at.has_kernels_for

        def __call__(self, args):
            chosen.append(args.indices_NK)
            return encode_at(args)

    def correlated(*args):
        through_all.append(correlate(*args))
        return through_all[-1]

    monkeypatch.setattr(_encodings, "ENCODE_AT", EncodeAt())
    monkeypatch.setattr(_encodings, "group_correlate", correlated)
    for backend in ("auto", "reference"):
        settings = {"n_latents": 20, "k": 1, "dead_after": 5, "aux_k": 2, "aux_coefficient": 3.0, "pose_distance": 0.0}
        made = crosscoder(tied=kind, pose=pose, sparsity=sparsity, **settings).double().train(training)
        made.threshold.fill_(0.5)
        acts = orbits(made).double().requires_grad_()
        with groupcc.ops.use_backend(backend):
            losses = made(acts).losses
            losses["total"].backward()
        found.append([*losses.values(), acts.grad, *(parameter.grad for parameter in made.parameters())])
    assert len(chosen) == (0 if kind == "residual" else 2 if training else 1)
    # The strongest poses alone, where no gradient goes through all of them, take no pre-activations in memory.
    formed = [] if pose == "max" else [False]
    assert [pre.requires_grad for pre in through_all] == ([] if kind == "residual" else [*formed, True])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("chosen", [None, torch.tensor([3, 1])], ids=["all", "some"])
def test_the_strongest_come_without_gradients_that_encode_at_has(chosen):
    pytest.importorskip("groupcc._C")
    made = crosscoder()
    with groupcc.ops.use_backend("auto"):
        values, poses = GroupEncoding(made, orbits(made), made.config.k).strongest(chosen)
    assert not values.requires_grad
    with groupcc.ops.use_backend("reference"):
        expected, at = GroupEncoding(made, orbits(made), made.config.k).strongest(chosen)
    assert expected.requires_grad
    torch.testing.assert_close(values, expected.detach())
    assert torch.equal(poses, at)


def test_acts_in_another_dtype_than_the_parameters():
    pytest.importorskip("groupcc._C")
    made = crosscoder()
    with groupcc.ops.use_backend("cpp"):
        assert made(orbits(made).double()).losses["total"].dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tied": 1}, "tied: expected True, False or"),
        ({"pose": "best"}, 'pose: expected "max" or "nms"'),
        ({"tied": False, "pose": "max"}, "n_latents: expected a multiple of |D4| = 8"),
        ({"k": 6}, "k: expected at most n_latents = 5"),
        ({"k": 41, "pose": "nms"}, "k: expected at most n_atoms = 40"),
        ({"tied": False, "pose": "max", "n_latents": 16}, "k: expected at most n_latents / |G| = 2"),
        ({"pose_distance": -1}, "pose_distance: expected a number from 0 to 180"),
        ({"pose_similarity": 1.5}, "pose_similarity: expected a number from 0 to 1"),
    ],
)
def test_configuration_errors(settings, message):
    with pytest.raises(groupcc.errors.ArgumentError) as raised:
        crosscoder(**settings)
    assert message in str(raised.value)


@pytest.mark.parametrize("pose", ["max", "nms"])
def test_recovers_a_planted_dictionary(pose):
    """24 base latents find all 16 shapes, so all 90 atoms, in 200 steps; every stabilizer is exact. With "max", whose
    runs rounding drives apart, all but a shape of two atoms."""
    truth = planted("D8", 24, 16, seed=0)
    acts, _ = truth.sample(20_000, n_active=3, seed=1)
    made = GroupCrosscoder(
        groupcc.CrosscoderConfig(
            group="D8", d_in=24, n_latents=24, k=4, encoder="orbit", tied=True, pose=pose, pose_distance=0.0,
            dead_after=2000,
        ),
        seed=0,
    )  # fmt: skip
    settings = groupcc.TrainConfig(steps=200, batch_size=512, held_out=0.05, progress=False)
    result = groupcc.train(made, acts, settings)
    least = 0.97 if pose == "max" else 1.0
    assert match(translates(made.W_dec.detach(), made.group), truth).share() >= least
    found = [stabilizer.mask for stabilizer in groupcc.analyze(made).stabilizers]
    assert match(made.W_dec, truth).stabilizer_exact(found) >= least
    assert result.metrics["fvu"] < (0.1 if pose == "max" else 0.01)
