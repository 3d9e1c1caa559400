"""The crosscoder: its equations, losses, folding, files and errors."""

import copy
import json
import math

import pytest
import torch

import groupcc
from groupcc import CrosscoderConfig, GroupCrosscoder, SparseLatents
from groupcc.errors import ArgumentError, DataError
from groupcc.models.auxiliary import aux_loss

NAN = math.nan


def make(**options):
    defaults = {"group": "D3", "d_in": 5, "n_latents": 12, "k": 3, "encoder": "orbit", "dead_after": 10}
    crosscoder = GroupCrosscoder(CrosscoderConfig(**{**defaults, **options}), seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for bias in (crosscoder.b_enc, crosscoder.b_dec):
            bias.copy_(0.3 * torch.randn(bias.shape, generator=generator))
    return crosscoder


def orbits(n=20, G=6, D=5):
    return torch.randn(n, G, D, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("encoder", ["identity", "orbit"])
def test_forward_is_the_designs_equations(encoder):
    crosscoder = make(encoder=encoder).eval()
    acts = orbits(4)
    out = crosscoder(acts)
    blocks = range(6) if encoder == "orbit" else [0]
    for n in range(4):
        pre = sum(crosscoder.W_enc[:, g] @ acts[n, g] for g in blocks) + crosscoder.b_enc
        best = sorted(range(12), key=lambda i: (-pre[i].item(), i))[:3]
        assert out.latents.indices[n].tolist() == best
        for g in range(6):
            expected = sum(pre[i].relu() * crosscoder.W_dec[i, g] for i in best) + crosscoder.b_dec[g]
            torch.testing.assert_close(out.reconstruction[n, g], expected)
    torch.testing.assert_close(out.losses["reconstruction"], (acts - out.reconstruction).square().mean())
    torch.testing.assert_close(crosscoder.decode(crosscoder.encode(acts)), out.reconstruction)


def test_identity_encoder_reads_block_0_only():
    crosscoder = make(encoder="identity").eval()
    acts = orbits()
    other = acts.clone()
    other[:, 1:] += 1
    assert torch.equal(crosscoder.pre_acts(acts), crosscoder.pre_acts(other))
    assert not torch.equal(make().pre_acts(acts), make().pre_acts(other))


@pytest.mark.parametrize(
    "options",
    [{}, {"encoder": "identity"}, {"sparsity": "batchtopk"}, {"sparsity": "l1", "l1_coefficient": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("S", [1, 6])
def test_encode_maps_is_encode_of_the_gathered_orbits(options, S):
    crosscoder = make(**options).eval()
    generator = torch.Generator().manual_seed(2)
    maps = torch.randn(3, S, 6, 7, 5, generator=generator)
    points = 1 + 3 * torch.rand(6, 4, 2, generator=generator)
    latents = crosscoder.encode_maps(maps, points)
    expected = crosscoder.encode(groupcc.ops.orbit_gather(maps, points, "bspline"))
    torch.testing.assert_close(latents.acts, expected.acts)
    assert torch.equal(latents.indices, expected.indices)


def test_encode_maps_refuses_what_is_not_finite_and_other_groups():
    maps, points = torch.zeros(2, 1, 4, 4, 5), torch.ones(6, 3, 2)
    maps[1, 0, 2, 2, 3] = float("inf")
    points[:, 1:] = 2
    with pytest.raises(ArgumentError, match=r"maps: .* in 2 examples, first image 1, position 1"):
        make().encode_maps(maps, points, "bilinear")
    make().encode_maps(maps, points[:, :1], "bilinear")
    with pytest.raises(ArgumentError, match=r"points: expected \[G, P, 2\] with G = 6"):
        make().encode_maps(maps, points[:5])


def test_trivial_group_is_a_plain_sparse_autoencoder():
    sae = make(group="C1", encoder="identity").eval()
    x = orbits(G=1)[:, 0]
    pre = x @ sae.W_enc[:, 0].t() + sae.b_enc
    f = pre.relu() * torch.zeros_like(pre).scatter(1, pre.topk(3).indices, 1)
    torch.testing.assert_close(sae(x[:, None]).reconstruction[:, 0], f @ sae.W_dec[:, 0] + sae.b_dec[0])


@pytest.mark.parametrize("penalty", ["block_sum", "concat"])
def test_l1_penalty_by_its_formula(penalty):
    crosscoder = make(sparsity="l1", l1_coefficient=0.7, l1_penalty=penalty, aux_k=0)
    acts = orbits()
    out = crosscoder(acts)
    f = crosscoder.pre_acts(acts).relu()
    norms = crosscoder.W_dec.norm(dim=2)
    weight = norms.sum(1) if penalty == "block_sum" else norms.square().sum(1).sqrt()
    expected = (f * weight).sum(1).mean()
    torch.testing.assert_close(out.losses["l1"], expected)
    torch.testing.assert_close(out.losses["total"], out.losses["reconstruction"] + 0.7 / 30 * expected)
    torch.testing.assert_close(out.latents.to_dense(12), f)
    assert out.latents.l0.tolist() == (f > 0).sum(1).tolist()


def test_batchtopk_uses_the_batch_in_training_and_the_threshold_after():
    crosscoder = make(sparsity="batchtopk", k=2)
    acts = orbits(50)
    out = crosscoder(acts)
    assert int((out.latents.acts > 0).sum()) == 100
    pre = crosscoder.pre_acts(acts)
    assert crosscoder.threshold == pre.flatten().topk(100).values[-1]
    crosscoder.eval()
    whole = crosscoder.encode(acts).to_dense(12)
    alone = torch.cat([crosscoder.encode(row[None]).to_dense(12) for row in acts])
    assert torch.equal(whole > 0, alone > 0)
    assert torch.equal(whole > 0, pre >= crosscoder.threshold)


def test_the_threshold_is_a_running_mean_of_the_batches():
    crosscoder = make(sparsity="batchtopk", k=2)
    expected = None
    for scale in (1.0, 3.0, 2.0):
        acts = scale * orbits(50)
        lowest = crosscoder.pre_acts(acts).flatten().topk(100).values[-1].item()
        expected = lowest if expected is None else 0.99 * expected + 0.01 * lowest
        crosscoder(acts)
        assert crosscoder.threshold.item() == pytest.approx(expected, rel=1e-6)


def test_both_encoders_start_with_the_same_gain():
    """On an orbit that is the same in every block, about as in the decoder itself: Σ_g a·d_g ≈ |G|·a·d_0."""
    latents = 4000
    invariant = orbits(20, G=1).expand(-1, 6, -1)
    of_encoder = {}
    for encoder in ("identity", "orbit"):
        crosscoder = GroupCrosscoder(CrosscoderConfig(group="D3", d_in=5, n_latents=latents, k=1, encoder=encoder))
        with torch.no_grad():
            crosscoder.W_enc.copy_(crosscoder.W_enc[:, :1].expand_as(crosscoder.W_enc))
            of_encoder[encoder] = crosscoder.pre_acts(invariant).square().mean().sqrt().item()
    assert of_encoder["identity"] == pytest.approx(of_encoder["orbit"], rel=0.03)


@pytest.mark.parametrize("sparsity", ["topk", "batchtopk", "l1"])
@pytest.mark.parametrize("encoder", ["identity", "orbit"])
def test_gradients_by_gradcheck(sparsity, encoder):
    crosscoder = make(sparsity=sparsity, encoder=encoder, l1_coefficient=0.1).double()
    acts = orbits(6).double()
    parameters = tuple(crosscoder.parameters())

    def total(*_):
        crosscoder.since_fired.fill_(100)  # everything dead: the auxiliary loss is on
        return crosscoder(acts).losses["reconstruction"], crosscoder(acts).losses.get("l1", acts.new_zeros(()))

    assert torch.autograd.gradcheck(total, parameters)


def test_aux_loss_by_its_formula():
    crosscoder = make(aux_k=2, aux_coefficient=0.5)
    crosscoder.since_fired[:] = 20
    acts = orbits(3)
    pre = crosscoder.pre_acts(acts).detach()
    out = crosscoder(acts)
    dead = [i for i in range(12) if not (out.latents.indices[out.latents.acts > 0] == i).any()]
    residual = (acts - out.reconstruction).detach()
    estimate = torch.zeros_like(residual)
    assert dead
    for n in range(3):
        for i in sorted(dead, key=lambda i: -pre[n, i].item())[:2]:
            estimate[n] += pre[n, i].relu() * crosscoder.W_dec[i].detach()
    expected = (estimate - residual).square().sum() / residual.square().sum()
    torch.testing.assert_close(out.losses["aux"].detach(), expected)
    torch.testing.assert_close(out.losses["total"], out.losses["reconstruction"] + 0.5 * out.losses["aux"])
    out.losses["aux"].backward()
    alive = [i for i in range(12) if i not in dead]
    assert crosscoder.W_dec.grad[alive].abs().max() == 0
    assert crosscoder.W_dec.grad[dead].abs().max() > 0


def test_aux_loss_is_0_where_nothing_is_left_to_explain():
    """ê is 2 in every entry: of e = −1 that leaves 9 times its power. Latent 1 is the stronger of the two dead ones."""
    acts, W_dec = torch.tensor([[2.0]], requires_grad=True), torch.ones(4, 2, 2, requires_grad=True)

    def strongest(latents, k):
        assert latents.tolist() == [1, 2]
        assert k == 1
        return SparseLatents(acts, latents[:1][None])

    def error(latents, target):
        return (latents.acts[0, 0] * W_dec[latents.indices[0, 0]] - target).square().sum()

    dead = torch.tensor([False, True, True, False])
    for left, expected in ((torch.zeros(1, 2, 2), 0.0), (torch.ones(1, 2, 2), 1.0), (torch.full((1, 2, 2), NAN), NAN)):
        loss = aux_loss(left, left.square().sum(), dead, 1, strongest, error)
        same = loss.isnan() if math.isnan(expected) else (loss - 9 * expected).abs() < 1e-5
        assert same
        gradients = torch.autograd.grad(loss, (acts, W_dec))
        assert all(g.isfinite().all() for g in gradients) or math.isnan(expected)


def test_since_fired_counts_examples():
    crosscoder = make()
    out = crosscoder(orbits(20))
    fired = torch.zeros(12, dtype=torch.bool)
    fired[out.latents.indices[out.latents.acts > 0]] = True
    assert crosscoder.since_fired.tolist() == [0 if f else 20 for f in fired]
    crosscoder.eval()(orbits(20))
    assert crosscoder.since_fired.max() <= 20


@pytest.mark.parametrize("sparsity", ["topk", "batchtopk", "l1"])
def test_folding_a_power_of_two_is_exact_both_ways(sparsity):
    crosscoder = make(sparsity=sparsity, l1_coefficient=0.1)
    crosscoder(orbits(30))
    crosscoder.eval()
    before = {name: value.clone() for name, value in crosscoder.state_dict().items()}
    acts, scale = orbits(), 0.125
    scaled = crosscoder(acts * scale)
    crosscoder.fold_scale_(scale)
    plain = crosscoder(acts)
    assert torch.equal(plain.latents.indices, scaled.latents.indices)
    assert torch.equal(plain.latents.acts * scale, scaled.latents.acts)
    assert torch.equal(plain.reconstruction * scale, scaled.reconstruction)
    crosscoder.fold_scale_(1 / scale)
    assert all(torch.equal(value, before[name]) for name, value in crosscoder.state_dict().items())


def test_saving_and_loading(tmp_path):
    crosscoder = make(sparsity="batchtopk").eval()
    crosscoder.provenance = {"layer": "mixed3b"}
    crosscoder.save_pretrained(tmp_path / "a" / "b")
    loaded = GroupCrosscoder.from_pretrained(tmp_path / "a" / "b")
    assert loaded.config == crosscoder.config
    assert loaded.provenance == crosscoder.provenance
    assert all(torch.equal(v, loaded.state_dict()[n]) for n, v in crosscoder.state_dict().items())
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["b"]
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["cfg.json", "crosscoder.safetensors"]


@pytest.mark.parametrize("encoder", ["identity", "orbit"])
def test_W_enc_and_its_gradient_lie_latent_by_latent_in_memory(tmp_path, encoder):
    made = make(encoder=encoder)
    loaded = GroupCrosscoder.from_pretrained(made.save_pretrained(tmp_path / "c"))
    assert loaded.fingerprint() == made.fingerprint()
    for crosscoder in (made, loaded, copy.deepcopy(made), make(encoder=encoder).double()):
        crosscoder(orbits().to(crosscoder.b_enc.dtype)).losses["total"].backward()
        for tensor in (crosscoder.W_enc, crosscoder.W_enc.grad):
            assert tensor.shape == (12, 6 if encoder == "orbit" else 1, 5)
            assert tensor.is_contiguous()


def test_the_reconstruction_is_formed_when_asked_for():
    out = make()(orbits())
    assert "reconstruction" not in vars(out)
    torch.testing.assert_close(out.reconstruction, out.acts + out.residual)


def test_damaged_files_are_named(tmp_path):
    directory = make().save_pretrained(tmp_path / "c")
    weights = directory / "crosscoder.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(DataError, match=r"crosscoder.safetensors is damaged"):
        GroupCrosscoder.from_pretrained(directory)
    header = json.loads((directory / "cfg.json").read_text())
    (directory / "cfg.json").write_text(json.dumps({**header, "format_version": 99}))
    with pytest.raises(DataError, match="format 99"):
        GroupCrosscoder.from_pretrained(directory)
    (directory / "cfg.json").write_text("{")
    with pytest.raises(DataError, match=r"cfg.json is damaged"):
        GroupCrosscoder.from_pretrained(directory)
    with pytest.raises(DataError, match="is missing"):
        GroupCrosscoder.from_pretrained(tmp_path / "nowhere")


def test_nan_and_shapes_are_refused_by_name():
    crosscoder = make()
    acts = orbits()
    acts[7, 2, 1] = float("nan")
    acts[9, 0, 0] = float("inf")
    with pytest.raises(ArgumentError, match=r"acts: expected finite numbers; got NaN or infinity in 2 rows.* row 7"):
        crosscoder(acts)
    with pytest.raises(ArgumentError, match=r"\[N, 6, 5\]; got torch.float32 of shape \(3, 6, 4\)"):
        crosscoder.encode(torch.zeros(3, 6, 4))
    assert torch.isfinite(crosscoder(torch.full((2, 6, 5), 3e38)).latents.indices).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 13}, "k: expected at most n_latents = 12"),
        ({"d_in": 0}, "d_in: expected a whole number >= 1"),
        ({"encoder": "all"}, 'encoder: expected "identity" or "orbit"; got'),
        ({"sparsity": "relu"}, 'sparsity: expected "topk", "batchtopk", .*"l1".*; got'),
        ({"sparsity": "l1"}, "l1_coefficient: expected a positive number"),
        ({"group": "Q8"}, "group: expected"),
        ({"aux_k": -1}, "aux_k"),
    ],
)
def test_bad_configurations(options, message):
    with pytest.raises(ArgumentError, match=message):
        make(**options)


def test_config_round_trip_and_unknown_keys():
    config = make().config
    assert CrosscoderConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ArgumentError, match="unknown flavour"):
        CrosscoderConfig.from_dict({**config.to_dict(), "flavour": 1})


def test_sparse_latents_round_trip():
    dense = torch.tensor([[0, 2.0, 1, 0], [0, 0, 0, 0], [3, 0, 4, 5]])
    latents = SparseLatents.from_dense(dense)
    assert latents.indices.shape == (3, 3)
    assert torch.equal(latents.to_dense(4), dense)
    assert latents.l0.tolist() == [2, 0, 3]


def test_empty_batch():
    out = make().eval()(torch.zeros(0, 6, 5))
    assert out.reconstruction.shape == (0, 6, 5)


def test_same_seed_same_weights():
    config = groupcc.CrosscoderConfig(group="C4", d_in=3, n_latents=8, k=2)
    assert torch.equal(GroupCrosscoder(config, seed=3).W_dec, GroupCrosscoder(config, seed=3).W_dec)
    assert not torch.equal(GroupCrosscoder(config, seed=3).W_dec, GroupCrosscoder(config, seed=4).W_dec)
